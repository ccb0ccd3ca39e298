/* The curl command for what was just done. */

import { find } from "./elements.js";
import { base, keys, predictionPath } from "./service.js";

const KEY_OPTION = '-H "Authorization: Bearer $KEY" ';

/** Show the command that sends the images as the page did. */
export function showCommand(images, query) {
  const key = keys.get() ? KEY_OPTION : "";
  const address = quote(new URL(predictionPath(query), base).href);
  const [image] = images;
  if (images.length > 1) {
    const names = images.map((each) => quote(each.name)).join(" ");
    find("curl").textContent =
      `for name in ${names}; do\n  curl ${key}-F "file=@\\"$name\\"" ${address}\ndone`;
  } else if (image.address) {
    find("curl").textContent = `curl -s ${quote(image.address)} | curl ${key}-F file=@- ${address}`;
  } else {
    find("curl").textContent = `curl ${key}-F ${quote(`file=@"${escape(image.name)}"`)} ${address}`;
  }
  find("save").hidden = images.length > 1 || !image.isNew;
  Object.assign(find("save"), { href: image.url, download: image.name });
  find("command").hidden = false;
}

/** Quote a word for a POSIX shell. */
function quote(word) {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** Escape a file name between double quotes, as curl's option -F wants it. */
function escape(name) {
  return name.replace(/["\\]/g, "\\$&");
}
