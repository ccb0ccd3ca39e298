/* What the service is: its health, its models and their cards, and whether it needs a key. */

import { find, make, percent } from "./elements.js";
import { ask, base, keys, pause } from "./service.js";

let models = []; // of GET /models, each with its device
let shown = ""; // the names and versions of these models

/** Keep the service's state on the page up to date. */
export async function watchHealth() {
  for (;;) {
    const health = await readHealth();
    find("health").dataset.status = health.status;
    find("health-text").textContent = `Service ${health.status}`;
    if (health.status === "ready" && nameVersions(health) !== shown && find("key-form").hidden) {
      await showModels(health);
    }
    await pause(health.status === "ready" ? 30 : 2);
  }
}

function readHealth() {
  return fetch(new URL("health", base), { cache: "no-store" })
    .then((response) => response.json())
    .catch(() => ({ status: "not reachable", models: [] }));
}

function nameVersions(health) {
  return health.models.map(({ name, version }) => `${name}/${version}`).join();
}

async function showModels(health) {
  try {
    models = (await (await ask("models")).json()).models;
  } catch (error) {
    if (error.status === 401) askForKey();
    return;
  }
  const devices = new Map(health.models.map(({ name, device }) => [name, device]));
  models.forEach((model) => Object.assign(model, { device: devices.get(model.name) }));
  find("key-form").hidden = true;
  find("forget").hidden = !keys.get();
  shown = nameVersions(health);
  const chosen = find("model").value;
  const options = models.map(({ name }) => make("option", { value: name, textContent: name }));
  find("model").replaceChildren(find("model").options[0], ...options);
  if (models.some(({ name }) => name === chosen)) find("model").value = chosen;
  // The samples show garments: of no use to a model of other classes.
  find("samples").hidden = !models.some(({ class_names }) => class_names.includes("Sneaker"));
  find("models").replaceChildren(
    ...models.flatMap((model, index) => [index ? "; " : "", ...describeModel(model)]),
  );
  showCoverageRange();
}

/** Return the model's name and version as a link to its card, and its device. */
export function describeModel({ name, version }) {
  const path = `models/${encodeURIComponent(name)}/card`;
  const link = make("a", { href: new URL(path, base).href, textContent: `${name} ${version}` });
  link.addEventListener("click", (event) => {
    event.preventDefault(); // a link cannot send the API key
    showCard(path);
  });
  const device = models.find((model) => model.name === name)?.device;
  return [link, device ? ` on ${device.toUpperCase()}` : ""];
}

async function showCard(path) {
  find("card-text").textContent = await ask(path)
    .then((response) => response.text())
    .catch((problem) => problem.message);
  find("card").showModal();
  find("card-text").scrollTop = 0;
}

/** Offer the coverages that are valid for every model that may answer. */
export function showCoverageRange() {
  const name = find("model").value;
  const ranges = models
    .filter((model) => !name || model.name === name)
    .map((model) => model.coverage_range ?? [1, 0]);
  const low = Math.max(...ranges.map((range) => range[0]));
  const high = Math.min(...ranges.map((range) => range[1]));
  find("coverage-option").hidden = !(low < high);
  if (low < high) Object.assign(find("coverage"), { min: low, max: high });
  showCoverage();
}

/** Write the value of the slider beside it. */
export function showCoverage() {
  const text = percent(find("coverage").value, 0);
  find("coverage-text").textContent = text;
  find("coverage").setAttribute("aria-valuetext", text);
}

/** Ask for an API key, after an answer said that it is missing or unknown. */
export function askForKey() {
  if (keys.get()) find("key-note").textContent = "The service does not know this key.";
  keys.forget();
  models = [];
  shown = "";
  find("key-form").hidden = false;
  find("forget").hidden = true;
  find("key").focus();
}

/** Use the key that was typed. */
export async function useKey() {
  keys.set(find("key").value.trim());
  find("key").value = "";
  find("key-form").hidden = true; // it comes back if the service does not know the key
  await showModels(await readHealth());
}
