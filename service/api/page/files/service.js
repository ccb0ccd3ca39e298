/* Requests to the service. */

// The service may be below a path of a proxy, so all addresses start from this file's address.
export const base = new URL("../", import.meta.url);

const KEY = "fashion-classifier-key";
const ATTEMPTS = 10;
const RETRIED = [408, 429, 503, 504];

export const keys = {
  get: () => sessionStorage.getItem(KEY), // the browser drops it with the tab
  set: (key) => sessionStorage.setItem(KEY, key),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What the service says when it does not answer (RFC 9457). */
export class Problem extends Error {
  constructor(body, retrySeconds = 0) {
    super(body.detail);
    Object.assign(this, body, { retrySeconds });
  }
}

/** Send a request; throw a Problem for every answer that is not 2xx. */
export async function ask(path, options = {}) {
  const key = keys.get();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(new URL(path, base), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The service cannot be reached, or it closed the connection. Try again.";
    throw new Problem({ title: "No answer", detail, status: 0 });
  }
  if (response.ok) return response;
  const foreign = { // a proxy in front of the service may answer with HTML, or JSON of its own
    title: `Status ${response.status}`,
    detail: "Something in front of the service rejected the request.",
    status: response.status,
  };
  const body = { ...foreign, ...(await response.json().catch(() => null)) };
  const wait = RETRIED.includes(response.status) ? Number(response.headers.get("Retry-After")) : 0;
  throw new Problem(body, wait || 0); // a proxy may send a date
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The answer broke off, or it is not one of the service. Try again.";
    throw new Problem({ title: "No answer", detail, status: 0 });
  }
}

/** Return the address and query of a prediction, such as "predict?explain=true". */
export function predictionPath({ explain, coverage, model }) {
  const query = new URLSearchParams();
  if (explain) query.set("explain", "true");
  if (coverage) query.set("coverage", coverage);
  if (model) query.set("model", model);
  const text = query.toString(); // older browsers do not know query.size
  return text ? `predict?${text}` : "predict";
}

/** Classify one image; return the answer and the milliseconds of each step. */
export async function predict(image, query, signal) {
  const body = new FormData();
  body.append("file", image.blob, image.name);
  const started = performance.now();
  const response = await ask(predictionPath(query), { method: "POST", body, signal });
  const answer = await readJson(response);
  const steps = readSteps(response.headers.get("Server-Timing") ?? "");
  steps.push(["browser", performance.now() - started]);
  return { answer, steps, query };
}

/** Classify one image; wait and try again where a later attempt can succeed. */
export async function predictPatiently(image, query, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await predict(image, query, signal);
    } catch (error) {
      if (!RETRIED.includes(error.status) || attempt === ATTEMPTS) throw error;
      // Requests that were rejected together must not come again together.
      await pause(Math.max(error.retrySeconds, 1) * (1 + Math.random() / 2), signal);
    }
  }
}

export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

function readSteps(header) {
  const entries = header.matchAll(/([\w-]+);dur=([\d.]+)/g);
  return [...entries].map(([, name, milliseconds]) => [name, Number(milliseconds)]);
}
