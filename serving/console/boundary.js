/** Boundary panel: a histogram of all users' margins for the song, and a slider for the gate's threshold. */

import { ask, ofSong } from "./api.js";
import { $, count, draw, make, percent, signed } from "./dom.js";
import { panel } from "./panel.js";

const [WIDTH, HEIGHT, FOOT] = [400, 180, 20];
const STEPS = 200; // of the slider over the histogram
const LIKE = "A like is a play completed or favourited. The chance is that of listeners in the log, who were not drawn "
  + "at random: others may like it less.";

/** Returns `show(song)` and `exact(audience)`, which replaces the estimated count by the service's. */
export function setUpBoundary(model, onMargin) {
  const root = $("#boundary");
  const fill = panel(root);
  let read = null; // sets the readout
  let last = null; // the last audience: it may arrive before the margins
  let song = null;
  let margin = model.margin; // kept when the song changes: not a setting of one song
  const moved = (value) => {
    margin = value;
    onMargin(value);
  };
  const none = "The service has no boundary model: every user counts as open to every song.";
  if (!model.boundary) $(".body", root).append(make("p", {}, none));
  const exact = (audience) => {
    const known = audience?.song_id === song && audience.above_boundary !== null && !audience.users_where;
    if (known) read?.(audience.margin, audience.above_boundary);
  };
  return {
    show(one) {
      read = null;
      song = one.song_id;
      if (!model.boundary) return;
      fill((signal) => ask(ofSong(song, "margins"), {}, signal), (answer) => {
        const [nodes, update] = parts(answer, margin, moved);
        read = update;
        exact(last);
        return nodes;
      }, true);
    },
    exact(audience) {
      last = audience;
      exact(audience);
    },
  };
}

/** The histogram, the slider and the readout, and the function that sets the readout. */
function parts(answer, margin, onMargin) {
  const { calibration, curve, edges, users } = answer;
  const [low, high] = [Math.min(0, margin, edges[0]), Math.max(0, margin, edges.at(-1))];
  const step = (high - low) / STEPS || 1;
  const bars = histogram(answer, low, high);
  const figures = readout();
  const scale = { min: low, max: high, step: "any" };
  const slider = make("input", { type: "range", ...scale, "aria-label": "Margin that users must clear" });
  const value = make("output", {}, "");
  const back = make("button", { type: "button", class: "quiet", onclick: () => move(0) }, "Back to 0");

  function update(at, exact = at === 0 ? answer.above : null) {
    if (Math.abs(at - Number(slider.value)) > step / 2) return; // an answer to an earlier position
    const share = exact === null ? reached(curve, at) : exact / (users || 1);
    const above = exact === null ? `≈ ${count(Math.round(share * users))}` : count(exact);
    figures.tell(above, percent(share), percent(calibration && chance(calibration, at)));
    value.textContent = signed(at);
    slider.setAttribute("aria-valuetext", `${signed(at)}: ${above} users above, ${percent(share)} of all`);
    bars.mark(at);
  }
  function move(to) {
    // rounded to four digits, and snapped to 0, the boundary itself
    slider.value = Math.abs(to) < step / 2 ? 0 : Number(to.toPrecision(4));
    update(Number(slider.value));
    onMargin(Number(slider.value));
  }
  slider.addEventListener("input", () => move(Number(slider.value)));
  slider.addEventListener("keydown", (event) => byKey(event, Number(slider.value), step, move));
  slider.value = margin;
  update(Number(slider.value));
  const line = make("div", { class: "row" }, make("span", {}, "Margin ", value), back);
  const nodes = [bars.svg, slider, line, figures.list];
  if (calibration) nodes.push(make("p", { class: "faint" }, LIKE));
  return [nodes, update];
}

/** Three figures, set by `tell`. */
function readout() {
  const names = ["users above", "of all users", "chance of a like at this margin"];
  const boxes = names.map(() => make("dd", { class: "figure" }));
  const tiles = names.map((name, n) => make("div", {}, make("dt", {}, name), boxes[n]));
  const tell = (...texts) => texts.forEach((text, n) => (boxes[n].textContent = text));
  return { list: make("dl", { class: "tiles" }, ...tiles), tell };
}

/** Arrow keys by one step, page keys by ten. */
function byKey(event, from, step, move) {
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  move(from + step * steps[event.key]);
}

/** Users by margin; `mark(at)` colours those above and sets the line. */
function histogram({ edges, counts }, low, high) {
  const across = (value) => ((value - low) / (high - low || 1)) * WIDTH;
  const most = Math.max(1, ...counts);
  const bars = counts.map((n, i) => {
    const tall = n ? Math.max(1, (n / most) * HEIGHT) : 0;
    const [left, right] = [across(edges[i]), across(edges[i + 1])];
    return draw("rect", { x: left, y: HEIGHT - tall, width: Math.max(0.5, right - left - 1), height: tall });
  });
  const line = draw("path", { class: "at" });
  const box = { class: "histogram", viewBox: `0 0 ${WIDTH} ${HEIGHT + FOOT}`, role: "img" };
  const name = { "aria-label": "Histogram of all users’ margins for this song" };
  const svg = draw("svg", { ...box, ...name }, ...bars, line, ...ticks(low, high, across));
  function mark(at) {
    bars.forEach((rect, i) => rect.setAttribute("class", (edges[i] + edges[i + 1]) / 2 > at ? "above" : "below"));
    line.setAttribute("d", `M${across(at)} 0V${HEIGHT}`);
  }
  return { svg, mark };
}

/** Tick labels of the axis: 0, and the ends that do not overlap it. */
function ticks(low, high, across) {
  const room = 110;
  const zero = across(0);
  const at = [[0, zero < 10 ? "start" : zero > WIDTH - 10 ? "end" : "middle"]];
  if (zero > room) at.push([low, "start"]);
  if (zero < WIDTH - room) at.push([high, "end"]);
  const y = HEIGHT + FOOT - 3;
  return at.map(([value, anchor]) =>
    draw("text", { x: across(value), y, "text-anchor": anchor }, value === 0 ? "0" : signed(value)),
  );
}

const chance = ([slope, intercept], margin) => 1 / (1 + Math.exp(-(slope * margin + intercept)));

/** The share of users above a margin, by linear interpolation of the curve, constant beyond its ends. */
function reached(curve, margin) {
  const after = curve.findIndex((row) => row.margin >= margin);
  if (after <= 0) return curve.at(after).reached; // −1 gives the last row
  const [a, b] = [curve[after - 1], curve[after]];
  return a.reached + ((margin - a.margin) / (b.margin - a.margin)) * (b.reached - a.reached);
}
