/** What those who played a song did with it, and whether it is worth showing to more users. */

import { ask, ofSong } from "./api.js";
import { count, debounced, make, many, percent } from "./dom.js";
import { panel } from "./panel.js";

const ADVICE = {
  widen: "Widen: show it to more users.",
  hold: "Hold: not enough is known yet.",
  stop: "Stop: other songs are worth more.",
};
const UNJUDGED = "No advice: neither its plays nor the catalogue tell what listeners do.";
const HINT = "Say how many users were shown it, to be told whether to show it to more.";
const MEANT = "Chance that those shown it do so more often than is usual in the catalogue";

/** The outcomes of a song, a field for how many users were shown it, and what follows from that. */
export function outcomes(song) {
  const field = { type: "number", min: 0, max: 1e9, step: 1, inputmode: "numeric", autocomplete: "off" };
  const shown = make("input", { ...field, "aria-describedby": "shown-hint" });
  const hint = make("p", { class: "faint", id: "shown-hint" }, HINT);
  const form = make("form", { class: "row", novalidate: true }, make("label", {}, "Shown to, users ", shown), hint);
  const advice = make("p", { class: "advice", role: "status" });
  const whole = make("div", { class: "outcomes" }, make("div", { class: "body" }), form, advice);
  const fill = panel(whole);
  function load() {
    const right = shown.checkValidity();
    shown.setAttribute("aria-invalid", String(!right));
    if (!right) return;
    const asked = { shown: shown.value === "" ? null : shown.value };
    const answered = (answer) => {
      advice.replaceChildren(...(answer.advice ? advised(answer.advice) : []));
      return lines(answer);
    };
    fill((signal) => ask(ofSong(song.song_id, "outcomes"), asked, signal), answered);
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  shown.addEventListener("input", debounced(load));
  load();
  return whole;
}

function lines({ played, ...of }) {
  const who = make("p", { class: "faint" }, played ? `${many(played, "user")} played it` : "Nobody has played it yet.");
  const rates = ["completed", "favourited"].map((name) => make("li", {}, ...rate(name, of[name])));
  return played ? [who, make("ul", { class: "rates" }, ...rates)] : [who];
}

function rate(name, { known, did, rate: mean, low, high, catalogue }) {
  if (!known) return [make("span", { class: "faint" }, `${name}: no play tells`)];
  const told = `${name} by ${count(did)} of ${count(known)}`;
  if (mean === null) return [make("span", { class: "faint" }, told)];
  const interval = `90\u202f% interval ${(100 * low).toFixed(1)} to ${percent(high)}`;
  const posterior = `${told}: ${percent(mean)} (${interval}; the catalogue ${percent(catalogue)})`;
  return [make("span", { class: "faint" }, posterior), range(low, high, catalogue)];
}

/** An interval of shares, and where the catalogue stands; hidden from screen readers, since the numbers are beside it. */
function range(low, high, usual) {
  const most = Math.min(1, 1.1 * Math.max(high, usual));
  const [inner, mark] = [make("span", { class: "from" }), make("span", { class: "usual" })];
  // through the DOM, as in `bar`
  inner.style.insetInlineStart = `${(100 * low) / most}%`;
  inner.style.width = `${(100 * (high - low)) / most}%`;
  mark.style.insetInlineStart = `${(100 * usual) / most}%`;
  return make("span", { class: "range", "aria-hidden": "true" }, inner, mark);
}

function advised({ shown, state, ...chances }) {
  if (state === null) return [UNJUDGED];
  const told = ["completed", "favourited"].filter((name) => chances[name] !== null);
  const each = told.map((name) => `${name} ${percent(chances[name], 0)}`).join(", ");
  const why = make("span", { class: "faint" }, `${MEANT}: ${each}, of ${many(shown, "user")}.`);
  return [make("strong", {}, ADVICE[state]), " ", why];
}
