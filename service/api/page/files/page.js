/* The page: takes images, asks the service and shows its answers. */

import { showAnswer, showHeatMap, showProblem, showUpload } from "./answer.js";
import { takePhoto, usesFileChooser } from "./camera.js";
import { showCommand } from "./command.js";
import { find } from "./elements.js";
import { ask, base, keys, predict } from "./service.js";
import { askForKey, showCoverage, showCoverageRange, useKey, watchHealth } from "./status.js";
import { classifyAll, downloadTable } from "./table.js";

let shown = null; // the image of the answer
let one = new AbortController();
let many = new AbortController();
let urls = [];

/** Classify what a person has just chosen, in place of what was there before. */
async function classify(files, more = {}) {
  if (!files.length) return;
  one.abort();
  many.abort();
  urls.forEach((url) => URL.revokeObjectURL(url));
  const images = files.map((file) => {
    return { blob: file, name: file.name, url: URL.createObjectURL(file), ...more };
  });
  urls = images.map((image) => image.url);
  find("many").hidden = images.length === 1;
  find("answer").hidden = images.length > 1;
  shown = null;
  await (images.length === 1 ? classifyOne(images[0]) : classifyMany(images));
}

async function classifyOne(image) {
  one.abort();
  one = new AbortController();
  const query = { ...readOptions(), explain: true };
  if (shown !== image) showUpload(image);
  shown = image;
  showCommand([image], query);
  try {
    say(showAnswer(await predict(image, query, one.signal)));
  } catch (problem) {
    if (problem.name === "AbortError") return;
    if (problem.status === 401) askForKey();
    showProblem(problem);
  }
}

async function classifyMany(images) {
  const controller = new AbortController();
  many = controller;
  const query = readOptions();
  showCommand(images, query);
  const rejectKey = () => { // every other image would get the same answer
    controller.abort();
    askForKey();
  };
  say(await classifyAll(images, query, controller.signal, openRow, rejectKey));
}

async function openRow(image) {
  await classifyOne(image);
  find("answer").scrollIntoView({ block: "nearest" });
}

function readOptions() {
  const coverage = find("coverage-option").hidden ? "" : find("coverage").value;
  return { coverage, model: find("model").value };
}

function say(text) {
  find("status").textContent = text;
}

async function classifySample(name) {
  const address = new URL(`page/${name}`, base).href;
  try {
    const blob = await (await ask(`page/${name}`)).blob();
    await classify([new File([blob], name, { type: blob.type })], { address });
  } catch (problem) {
    showProblem(problem);
  }
}

async function photograph() {
  find("camera-note").hidden = true;
  if (usesFileChooser()) {
    find("photo-file").click();
    return;
  }
  try {
    const photo = await takePhoto();
    if (photo) await classify([photo], { isNew: true });
  } catch {
    find("camera-note").hidden = false;
  }
}

find("choose").addEventListener("click", () => find("files").click());
find("photograph").addEventListener("click", photograph);
for (const id of ["files", "photo-file"]) {
  find(id).addEventListener("change", ({ target }) => {
    classify([...target.files]);
    target.value = ""; // the same file can be chosen again
  });
}
for (const button of document.querySelectorAll("#samples button")) {
  button.addEventListener("click", () => classifySample(button.dataset.name));
}
document.addEventListener("paste", (event) => {
  classify([...event.clipboardData.files], { isNew: true });
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  classify([...event.dataTransfer.files]);
});
find("model").addEventListener("change", () => {
  showCoverageRange();
  if (shown) classifyOne(shown);
});
find("coverage").addEventListener("input", showCoverage);
find("coverage").addEventListener("change", () => shown && classifyOne(shown));
find("heat").addEventListener("change", showHeatMap);
find("cancel").addEventListener("click", () => many.abort());
find("download").addEventListener("click", downloadTable);
find("copy").hidden = !navigator.clipboard; // browsers offer it only over HTTPS and on localhost
find("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(find("curl").textContent);
  find("copy").textContent = "Copied";
  setTimeout(() => (find("copy").textContent = "Copy"), 2000);
});
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey();
});
find("forget").addEventListener("click", () => {
  keys.forget();
  location.reload();
});
watchHealth();
