/* Classifies many images and fills a table with the answers. */

import { find, make, percent } from "./elements.js";
import { predictPatiently } from "./service.js";

const AT_ONCE = 4;
// The columns of the batch client's CSV: python -m service.client.
const COLUMNS = [
  "path", "class_id", "class_name", "probability", "probabilities", "model", "error_type",
  "error_title", "error_detail", "request_id", "explanation", "distance", "in_distribution",
  "label",
];

let latest = []; // the results that the table shows

/**
 * Classify the images, some at a time; `open` shows one of them. `rejectKey` is called if the
 * service does not know the key. Return how it ended.
 */
export async function classifyAll(images, query, signal, open, rejectKey) {
  const results = images.map((image) => ({ image }));
  latest = results;
  const rows = images.map((image) => startRow(image, open));
  find("rows").replaceChildren(...rows);
  find("many").hidden = false;
  find("cancel").hidden = false;
  find("progress").max = images.length;
  const started = performance.now();
  const waiting = images.keys();
  const work = async () => {
    for (const index of waiting) {
      if (signal.aborted) return;
      await classifyOne(results[index], rows[index], query, signal, rejectKey);
      if (latest === results) showProgress(results, performance.now() - started);
    }
  };
  showProgress(results, 0);
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (latest !== results) return ""; // another table took its place
  find("cancel").hidden = true;
  results.forEach((result, index) => {
    if (!result.answer && !result.problem) fillRow(rows[index], ["Cancelled"], "note");
  });
  if (signal.aborted) find("count").textContent += ", then cancelled";
  return find("count").textContent;
}

async function classifyOne(result, row, query, signal, rejectKey) {
  try {
    const { answer } = await predictPatiently(result.image, query, signal);
    result.answer = answer;
    const { class_name: name, probability, prediction_set: set, model } = answer;
    const known = { true: "yes", false: "probably not" }[answer.in_distribution] ?? "not measured";
    const setText = set ? set.join(", ") || "empty" : "";
    fillRow(row, [name, percent(probability), known, setText, `${model.name} ${model.version}`]);
  } catch (error) {
    if (error.name === "AbortError") return;
    result.problem = error;
    fillRow(row, [`${error.title}: ${error.detail ?? error.message}`], "failure");
    if (error.status === 401) rejectKey();
  }
}

function startRow(image, open) {
  const button = make("button", { type: "button", className: "link", textContent: image.name });
  button.addEventListener("click", () => open(image));
  const picture = make("img", { src: image.url, alt: "", loading: "lazy", width: 40, height: 40 });
  picture.addEventListener("error", () => picture.remove());
  const head = make("th", { scope: "row" }, picture, button);
  return make("tr", {}, head, make("td", { colSpan: 5, textContent: "…" }));
}

function fillRow(row, texts, className = "") {
  const cells = texts.map((text) => make("td", { textContent: text, className }));
  if (texts.length === 1) cells[0].colSpan = 5;
  row.replaceChildren(row.firstChild, ...cells);
}

function showProgress(results, milliseconds) {
  const answered = results.filter((result) => result.answer).length;
  const failed = results.filter((result) => result.problem).length;
  const done = answered + failed;
  find("progress").value = done;
  const failures = failed ? `, ${failed} failed` : "";
  const rate = done ? `, ${((done * 1000) / milliseconds).toFixed(1)} per second` : "";
  find("count").textContent = `${done} of ${results.length} images${failures}${rate}`;
}

/** Offer the table as a file with the columns of the batch client's CSV. */
export function downloadTable() {
  const lines = [COLUMNS, ...latest.filter((each) => each.answer || each.problem).map(toCells)];
  const text = lines.map((cells) => `${cells.map(quote).join(",")}\r\n`).join("");
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function toCells({ image, answer = {}, problem = {} }) {
  const cells = {
    ...answer,
    path: image.name,
    probabilities: answer.probabilities && JSON.stringify(answer.probabilities),
    model: answer.model && `${answer.model.name}/${answer.model.version}`,
    error_type: problem.type,
    error_title: problem.title,
    error_detail: problem.detail,
    request_id: problem.request_id,
  };
  return COLUMNS.map((column) => cells[column] ?? "");
}

function quote(cell) {
  const text = String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
