/* Shows the answer to one image. */

import { find, make, percent } from "./elements.js";
import { describeModel } from "./status.js";

const STEPS = {
  decode: "Decode the image",
  queue: "Wait for a free place",
  inference: "Run the model",
  total: "Service in all",
  browser: "Seen from this browser",
};
const PARTS = ["words", "steps", "seen", "problem"];
const WARNINGS = {
  "no item": "No item was found: the model saw the whole image.",
  "cut off": "The item is cut off at an edge.",
  cluttered: "The background is cluttered.",
  worn: "Somebody seems to wear the item; this model expects unworn ones.",
};

/** Show the image, before its answer is there. */
export function showUpload(image) {
  const picture = find("upload-picture");
  picture.src = image.url;
  picture.onload = () => picture.classList.toggle("small", picture.naturalWidth <= 64);
  find("upload-caption").textContent = image.name;
  picture.onerror = () => {
    find("upload-caption").textContent = `${image.name} (this browser cannot show it)`;
  };
  find("item-box").hidden = true;
  for (const id of PARTS) find(id).hidden = true;
  find("answer").hidden = false;
  find("answer").setAttribute("aria-busy", "true");
}

/** Show an answer and the time that it took. */
export function showAnswer({ answer, steps, query }) {
  showParts("words", "steps", "seen");
  find("answer-class").textContent = answer.class_name;
  find("answer-share").textContent = percent(answer.probability);
  find("known").textContent = describeKnown(answer);
  find("known").className = answer.in_distribution === false ? "badge doubt" : "badge";
  showSet(answer, query);
  showBars(answer);
  showExplanation(answer.explanation);
  find("answer-model").replaceChildren(...describeModel(answer.model));
  find("step-list").replaceChildren(
    ...steps.flatMap(([step, milliseconds]) => [
      make("dt", { textContent: STEPS[step] ?? step }),
      make("dd", { textContent: `${milliseconds.toFixed(1)} ms` }),
    ]),
  );
  return `${answer.class_name}, ${percent(answer.probability)}. ${describeKnown(answer)}.`;
}

/** Show why an image has no answer. */
export function showProblem(problem) {
  showParts("problem");
  find("answer").hidden = false;
  find("problem-title").textContent = problem.title;
  find("problem-detail").textContent = problem.detail;
  find("problem-id").textContent = problem.request_id ? `Request ${problem.request_id}` : "";
}

function showParts(...shown) {
  for (const id of PARTS) find(id).hidden = !shown.includes(id);
  find("answer").removeAttribute("aria-busy");
}

function describeKnown(answer) {
  const count = Object.keys(answer.probabilities).length;
  const known = { true: "One of", false: "Probably none of" }[answer.in_distribution];
  return known ? `${known} the ${count} classes` : "This model does not detect other items";
}

function showSet({ prediction_set: set }, { coverage }) {
  find("set").hidden = !set;
  find("set-coverage").textContent = percent(coverage, 0);
  find("set-names").textContent = set?.join(", ") || "empty, because no class is likely enough";
}

function showBars(answer) {
  const best = Object.entries(answer.probabilities).sort(([, one], [, other]) => other - one);
  find("bars").replaceChildren(
    ...best.map(([name, probability]) => {
      const isInSet = answer.prediction_set?.includes(name);
      const fill = make("span", { className: "fill" });
      fill.style.width = percent(probability).replace(" ", "");
      return make(
        "li",
        { className: isInSet ? "in-set" : "" },
        make("span", { className: "name", textContent: name }),
        make("span", { className: "bar" }, fill),
        make("span", { className: "share", textContent: percent(probability) }),
        make("span", { className: "visually-hidden", textContent: isInSet ? ", in the set" : "" }),
      );
    }),
  );
}

function showExplanation(explanation) {
  const seen = find("seen-picture");
  seen.src = `data:image/png;base64,${explanation.image}`;
  seen.onload = () => seen.classList.toggle("small", seen.naturalWidth <= 64);
  find("heat-option").hidden = !explanation.heat_map;
  if (explanation.heat_map) find("heat-map").src = `data:image/png;base64,${explanation.heat_map}`;
  showHeatMap();
  showBox(explanation.item_box);
  find("seen-caption").textContent = `What the model saw${describeChanges(explanation)}`;
  const warnings = (explanation.warnings ?? []).map((warning) => WARNINGS[warning] ?? warning);
  find("warnings").textContent = warnings.join(" ");
  find("warnings").hidden = !warnings.length;
}

function showBox(box) {
  const element = find("item-box");
  element.hidden = !box;
  if (!box) return;
  const [left, top, right, bottom] = box.map((share) => share * 100);
  Object.assign(element.style, {
    left: `${left}%`,
    top: `${top}%`,
    width: `${right - left}%`,
    height: `${bottom - top}%`,
  });
}

/** Put the heat map over what the model saw, if it is wanted. */
export function showHeatMap() {
  find("heat-map").hidden = find("heat-option").hidden || !find("heat").checked;
}

function describeChanges({ polarity, mirrored, background }) {
  const changes = [
    polarity === "negated" && "dark and light swapped",
    mirrored && "mirrored",
    background && `background ${background} removed`,
  ].filter(Boolean);
  return changes.length ? `: ${changes.join(", ")}` : "";
}
