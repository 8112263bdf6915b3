/** Small tools that build the page from data. Text goes in as text nodes, never as markup: titles may hold anything. */

const SVG = "http://www.w3.org/2000/svg";

/** The one element of a selector. */
export const $ = (selector, within = document) => within.querySelector(selector);

const there = (value) => value !== null && value !== undefined && value !== false;

/** Sets attributes (a function is a listener: `onclick`), leaves out null and false ones, appends the children. */
function complete(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (there(value)) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(there));
  return node;
}

/** An HTML element. */
export const make = (tag, attributes = {}, ...children) => complete(document.createElement(tag), attributes, children);

/** An SVG element. */
export const draw = (tag, attributes = {}, ...children) =>
  complete(document.createElementNS(SVG, tag), attributes, children);

/** Words that a user wrote: they may run from right to left. */
export const words = (text, css = "") => make("bdi", { class: css || null }, text);

/** A bar of `value` on a scale that ends at `most`; its figure stands beside it, so it is hidden from readers. */
export function bar(value, most) {
  const inner = make("span");
  // by the object model: the page's policy forbids style attributes
  inner.style.width = `${100 * Math.min(1, Math.max(0, value / (most || 1) || 0))}%`;
  return make("span", { class: "bar", "aria-hidden": "true" }, inner);
}

const counts = new Intl.NumberFormat("en");
/** 1234 → 1,234 */
export const count = (value) => counts.format(value);
/** "1 user", "2 users" */
export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
/** Three digits after the point. */
export const score = (value) => (there(value) ? value.toFixed(3) : "–");
/** The same with its sign, which is what a margin is about. */
export const signed = (value) => (there(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}` : "–");
/** A share as per cent. */
export const percent = (value, digits = 1) => (there(value) ? `${(100 * value).toFixed(digits)}\u202f%` : "–");
/** Seconds as 3:07. */
export const clock = (seconds) =>
  `${Math.floor(Math.round(seconds) / 60)}:${String(Math.round(seconds) % 60).padStart(2, "0")}`;

/** What a song is called: one without a title by its id. */
export const title = (song) => song.title || `Untitled (${song.song_id})`;

/** `act` once nothing more has come for `wait` ms: a moving slider asks once. */
export function debounced(act, wait = 250) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}

/** Tells a screen reader what has changed. */
export const say = (text) => {
  $("#said").textContent = text;
};

/** Marks the one button of a list that is chosen: `kind` is "song" or "user". */
export function current(kind, id) {
  for (const button of document.querySelectorAll(`[data-${kind}]`)) {
    if (button.dataset[kind] === id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}
