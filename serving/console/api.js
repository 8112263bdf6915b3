/** Client of the service: requests with the access token, and error messages. */

import { newToken, token } from "./token.js";

const PATIENCE = 120_000; // ms

const SENTENCES = {
  0: "The service cannot be reached: it has stopped, or the network is down.",
  401: "The service asks for an access token.",
  403: "The service refuses this.",
  404: "The service does not know this.",
  408: "The service did not answer in time.",
  413: "The upload is larger than the service accepts.",
  422: "The service cannot use this.",
  429: "The service is busy with other songs.",
  503: "The service cannot take this at the moment.",
};

// what the page calls a field that the service names otherwise
const FIELDS = {
  artist_id: "Artist",
  users_where: "“Only users of whom this holds”",
  where: "“Only songs of which this holds”",
};

/** An error with a readable message. `status` 0: no response. */
export class Problem extends Error {
  constructor(status, detail = "", wait = "") {
    super(inWords(status, detail, wait));
    this.status = status;
  }
}

/** The service's reason, or the meaning of the status, and when to retry. */
function inWords(status, detail, wait) {
  const named = (field) => FIELDS[field] ?? field;
  const reason = Array.isArray(detail)
    ? detail.map((one) => `${named((one.loc ?? []).slice(1).join("."))}: ${one.msg}`).join("; ")
    : String(detail ?? "").replace(/^\w+(?=: )/, named);
  const meaning = SENTENCES[status] ?? `The service failed (${status}).`;
  const given = status === 401 || !reason ? "" : sentence(reason);
  const alone = [403, 404, 409, 421, 422].includes(status); // the reason suffices
  return [alone && given ? "" : meaning, given, wait && `Try again in ${wait} s.`].filter(Boolean).join(" ");
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?…]$/.test(text) ? "" : "."}`;

function detailOf(text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return ""; // a proxy's page, not the service's JSON
  }
}

/** Sends a request; on 401 asks for another token and repeats it. */
async function send(path, options) {
  const used = token();
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(PATIENCE)].filter(Boolean));
  const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(error.name === "TimeoutError" ? 408 : 0);
  }
  if (response.status === 401 && (await newToken(used))) return send(path, options);
  if (!response.ok)
    throw new Problem(response.status, detailOf(await response.text()), response.headers.get("Retry-After") ?? "");
  return response;
}

/** A path with parameters; null values of `query` are left out. */
export const withQuery = (path, query) =>
  `${path}?${new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null))}`;

/** GETs the JSON at `path`; `query` as in `withQuery`. */
export const ask = async (path, query = {}, signal = null) => (await send(withQuery(path, query), { signal })).json();

/** GETs the blob at `path`: an audio element cannot send the token. */
export const bytes = async (path, signal = null) => (await send(path, { signal })).blob();

/** POSTs JSON. */
export async function tell(path, content, signal = null) {
  const headers = { "Content-Type": "application/json" };
  return (await send(path, { method: "POST", headers, body: JSON.stringify(content), signal })).json();
}

/** POSTs a form and reports upload progress, which fetch does not support. */
export async function upload(path, form, key, onProgress, signal) {
  const used = token();
  const { status, text, wait } = await posted(path, form, key, used, onProgress, signal);
  if (status === 401 && (await newToken(used))) return upload(path, form, key, onProgress, signal);
  if (status !== 201) throw new Problem(status, detailOf(text), wait ?? "");
  return JSON.parse(text);
}

function posted(path, form, key, used, onProgress, signal) {
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("POST", path);
    request.setRequestHeader("Idempotency-Key", key);
    if (used) request.setRequestHeader("Authorization", `Bearer ${used}`);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.upload.onload = () => onProgress(1);
    request.onload = () =>
      resolve({ status: request.status, text: request.responseText, wait: request.getResponseHeader("Retry-After") });
    request.onerror = () => reject(new Problem(0));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** A random idempotency key (randomUUID exists on secure pages only). */
export const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The path of a song's resource; ids may have any characters. */
export const ofSong = (id, what = "") => `songs/${encodeURIComponent(id)}${what && `/${what}`}`;
