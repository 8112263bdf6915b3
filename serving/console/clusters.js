/** Clusters panel: a map of CAT's seed users as points, one mark per cluster, the new song as a cross. */

import { ask, ofSong } from "./api.js";
import { $, count, draw, make, many, percent, say, words } from "./dom.js";
import { panel } from "./panel.js";

const SIDE = 400;
const EDGE = 14;
const MOST = 3000; // points: more make the page slow without clarity
const KINDS = 12;
const MARKS = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-0.9 * r} ${-0.9 * r}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`,
  (r) => `M0 ${-1.2 * r}L${1.15 * r} ${0.9 * r}H${-1.15 * r}z`,
  (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0z`,
];

/** Returns `show(song)`, which draws the map. Calls `pickUser(id)` for a click on a point. */
export function setUpClusters(model, pickUser) {
  const root = $("#clusters");
  root.hidden = !model.modes.includes("cat");
  const fill = panel(root);
  return (song) => {
    if (root.hidden) return;
    fill((signal) => ask(ofSong(song.song_id, "clusters"), {}, signal), (answer) => picture(answer, pickUser), true);
  };
}

function picture(answer, pickUser) {
  const { points, centroids } = answer;
  if (!points.length) return [make("p", {}, "Nobody listened to a similar song: there is nothing to cluster.")];
  const place = placing([answer.song, ...points, ...centroids]);
  const every = Math.ceil(points.length / MOST);
  const drawn = points.filter((_, n) => n % every === 0).sort((a, b) => a.cluster - b.cluster || a.x - b.x);
  const part = every > 1 ? `, ${count(drawn.length)} of them drawn` : "";
  const all = `${many(points.length, "user")} in ${many(centroids.length, "cluster")}${part}`;
  const line = make("p", { class: "caption" }, all);
  const box = { class: "map", viewBox: `0 0 ${SIDE} ${SIDE}` };
  const map = draw("svg", { ...box, role: "group", "aria-label": "Map of users" });
  const marks = drawn.map((point) => userMark(point, centroids[point.cluster], place, pickUser));
  const centres = centroids.map((centre, n) => centreMark(centre, n, place));
  map.append(...marks, ...centres, songMark(place(answer.song)));
  walk(map, marks, line);
  return [make("div", { class: "seen" }, make("div", {}, map, line), legend(centroids, map))];
}

/** Maps coordinates to the picture, with one scale for both axes, so that distances are comparable. */
function placing(spots) {
  const span = (key) => [Math.min(...spots.map((s) => s[key])), Math.max(...spots.map((s) => s[key]))];
  const [[left, right], [low, high]] = [span("x"), span("y")];
  const scale = (SIDE - 2 * EDGE) / (Math.max(right - left, high - low) || 1);
  return ({ x, y }) => [SIDE / 2 + (x - (left + right) / 2) * scale, SIDE / 2 - (y - (low + high) / 2) * scale];
}

const shape = (kind, r) => MARKS[kind % MARKS.length](r);
const at = ([x, y]) => `translate(${x.toFixed(1)} ${y.toFixed(1)})`;
const genreShares = (genres) =>
  genres
    .slice(0, 3)
    .map(({ genre, share }) => `${genre} ${percent(share, 0)}`)
    .join(", ");

function userMark(point, centre, place, pickUser) {
  const kind = point.cluster % KINDS;
  const genres = centre ? genreShares(centre.genres) : "";
  const label = `${point.user_id}, cluster ${point.cluster + 1}${genres && ` (${genres})`}`;
  return draw("path", {
    class: `point k${kind}`, d: shape(kind, 4), transform: at(place(point)), "data-cluster": point.cluster,
    role: "button", tabindex: "-1", "aria-label": label, onclick: () => pickUser(point.user_id),
  });
}

function centreMark(centre, n, place) {
  const spot = place(centre);
  return draw("g", { class: `centre k${n % KINDS}`, transform: at(spot), "data-cluster": n, "aria-hidden": "true" },
    draw("path", { d: shape(n % KINDS, 11) }), draw("text", { y: -14, "text-anchor": "middle" }, String(n + 1)));
}

const songMark = (spot) =>
  draw("g", { class: "newsong", transform: at(spot), role: "img", "aria-label": "The new song" },
    draw("path", { class: "halo", d: "M-8 -8L8 8M-8 8L8 -8" }), draw("path", { d: "M-8 -8L8 8M-8 8L8 -8" }));

/** Keyboard navigation: one tab stop, arrow keys between points; the label of the current point is shown below. */
function walk(map, marks, line) {
  const rest = line.textContent;
  marks[0].setAttribute("tabindex", "0");
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  map.addEventListener("keydown", (event) => {
    const here = marks.indexOf(event.target);
    if (here < 0) return;
    if (event.key === "Enter" || event.key === " ") event.target.dispatchEvent(new MouseEvent("click"));
    else if (!(event.key in steps)) return;
    else marks[Math.min(marks.length - 1, Math.max(0, here + steps[event.key]))].focus();
    event.preventDefault();
  });
  let stop = marks[0];
  const focused = (event) => {
    stop.setAttribute("tabindex", "-1");
    (stop = event.target).setAttribute("tabindex", "0");
    line.textContent = stop.getAttribute("aria-label");
  };
  for (const mark of marks) {
    mark.addEventListener("focus", focused); // a listener on the picture would make it a tab stop too
    mark.addEventListener("blur", () => (line.textContent = rest));
  }
  map.addEventListener("pointerover", (event) => {
    line.textContent = event.target.closest(".point, .newsong")?.getAttribute("aria-label") ?? rest;
  });
  map.addEventListener("pointerleave", () => (line.textContent = rest));
}

/** The legend; pressing a cluster dims the others. */
function legend(centroids, map) {
  const buttons = centroids.map((centre, n) => {
    const sign = draw("path", { class: "point", d: shape(n % KINDS, 5) });
    const mark = draw("svg", { viewBox: "-8 -8 16 16", class: `k${n % KINDS}`, "aria-hidden": "true" }, sign);
    const size = `Cluster ${n + 1}, ${many(centre.size, "user")}`;
    const pressed = { "aria-pressed": "false", onclick: () => only(n) };
    const name = make("span", {}, size, words(genreShares(centre.genres), "faint"));
    return make("button", { type: "button", class: "quiet", ...pressed }, mark, name);
  });
  function only(n) {
    const on = buttons[n].getAttribute("aria-pressed") !== "true";
    buttons.forEach((button, m) => button.setAttribute("aria-pressed", String(on && m === n)));
    for (const mark of map.querySelectorAll("[data-cluster]"))
      mark.classList.toggle("dim", on && Number(mark.dataset.cluster) !== n);
    say(on ? `Cluster ${n + 1} alone` : "All clusters");
  }
  const lines = draw("path", { class: "cross", d: "M-7 -7L7 7M-7 7L7 -7" });
  const cross = draw("svg", { viewBox: "-10 -10 20 20", "aria-hidden": "true" }, lines);
  const song = make("li", { class: "entry" }, cross, "The new song");
  return make("ul", { class: "legend" }, song, ...buttons.map((button) => make("li", {}, button)));
}
