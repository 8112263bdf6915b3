/** DOM helpers. Text is inserted as text nodes, never as markup: titles may have any characters. */

const SVG = "http://www.w3.org/2000/svg";

/** The element of a selector. */
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

/** Text from users, which may run from right to left. */
export const words = (text, css = "") => make("bdi", { class: css || null }, text);

/** A bar of `value` on a scale from `least` to `most`; hidden from screen readers, since the number is beside it. */
export function bar(value, most, least = 0) {
  const inner = make("span");
  // through the DOM: the content security policy forbids style attributes
  inner.style.width = `${100 * Math.min(1, Math.max(0, (value - least) / (most - least || 1) || 0))}%`;
  return make("span", { class: "bar", "aria-hidden": "true" }, inner);
}

const counts = new Intl.NumberFormat("en");
/** 1234 → 1,234 */
export const count = (value) => counts.format(value);
/** "1 user", "2 users" */
export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
/** Three decimals. */
export const score = (value) => (there(value) ? value.toFixed(3).replace("-", "−") : "–");
/** Three decimals with the sign. */
export const signed = (value) => (there(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}` : "–");
/** A share as per cent. */
export const percent = (value, digits = 1) => (there(value) ? `${(100 * value).toFixed(digits)}\u202f%` : "–");
/** Seconds as 3:07. */
export const clock = (seconds) =>
  `${Math.floor(Math.round(seconds) / 60)}:${String(Math.round(seconds) % 60).padStart(2, "0")}`;

/** The title of a song, or its id. */
export const title = (song) => song.title || `Untitled (${song.song_id})`;

/** Calls `act` after `wait` ms without another call. */
export function debounced(act, wait = 250) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}

/** Announces a change to screen readers. */
export const say = (text) => {
  $("#said").textContent = text;
};

/** Marks the chosen button of a list: `kind` is "song" or "user". */
export function current(kind, id) {
  for (const button of document.querySelectorAll(`[data-${kind}]`)) {
    if (button.dataset[kind] === id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}
