/** Audience panel: the users to target under a budget, with the songs that explain each choice. */

import { ask, ofSong } from "./api.js";
import { setUpCondition, UNREAD } from "./condition.js";
import { $, bar, count, debounced, make, many, say, score, signed, title, words } from "./dom.js";
import { panel } from "./panel.js";

const MODES = {
  i2i2u: "Listeners of similar songs (I2I2U)",
  taste: "Nearest taste",
  cat: "Clusters of taste (CAT)",
  union: "I2I2U and CAT",
  boundary: "Furthest above their boundary (U2I)",
  rank: "Ranked by what listeners did with new songs",
};

const CHANNELS = { i2i2u: "I2I2U", taste: "taste", cat: "CAT", boundary: "boundary" };

const SCORE = "The score is what the mode ranks by: it compares users of one song and mode, nothing else.";
const NOBODY = "No user is named. A lower margin, another mode, no gate or no condition may name some.";
const BUDGET = 50; // default
const MOST = 10_000; // the service's limit
const LISTED = 200; // rows of the table: more make the page slow

/** Returns `show(song)`, `query()` (the settings, or null) and `margin(value)`. Calls `onAnswer(audience)` for each
 *  audience (null where the condition is refused), and `pickUser(id)` for each click on a user. */
export function setUpAudience(model, onAnswer, pickUser) {
  const form = $("#audience form");
  const fill = panel($("#audience"));
  const where = setUpCondition(form.where, model.conditions.users.example, () => load());
  let song = null;
  let margin = model.margin;
  form.mode.append(...model.modes.map((mode) => make("option", { value: mode }, MODES[mode] ?? mode)));
  form.budget.max = Math.min(model.users, MOST);
  form.budget.value = Math.min(BUDGET, model.users);
  form.gate.closest("label").hidden = !model.boundary;

  /** The settings; null while the budget is invalid. */
  function query() {
    const right = form.budget.checkValidity() && form.budget.value !== "";
    form.budget.setAttribute("aria-invalid", String(!right));
    $("#budget-note").hidden = right;
    const most = count(Number(form.budget.max));
    $("#budget-note").textContent = right ? "" : `The budget is a whole number from 1 to ${most}.`;
    const { mode, budget, gate } = form;
    const set = { mode: mode.value, budget: budget.value, gate: gate.checked, margin, users_where: where.value() };
    return right ? set : null;
  }

  function shown(audience) {
    onAnswer(audience);
    if (!audience) return [make("p", {}, UNREAD)];
    say(`${many(audience.users.length, "user")} of at most ${audience.budget}`);
    const more = audience.users.length - LISTED;
    const cut = more > 0 ? [make("p", { class: "faint" }, `The first ${LISTED}; ${count(more)} more are named.`)] : [];
    return [...size(audience), ...table(audience, pickUser), ...cut, saver(audience)];
  }

  function load(fresh = false, given = null) {
    const set = query();
    if (!song || !set) return;
    form.gate.disabled = set.mode === "boundary"; // this mode is a gate itself
    // the response to an upload has the audience already, unless the settings have changed
    const fits = given && Object.keys(set).every((name) => String(given[name]) === String(set[name]));
    const path = ofSong(song.song_id, "audience");
    fill((signal) => where.read(fits ? given : ask(path, set, signal)), shown, fresh);
  }

  const soon = debounced(load);
  form.addEventListener("input", (event) => {
    if (event.target !== form.where) event.target === form.budget ? soon() : load();
  });
  return {
    query,
    show(one) {
      song = one;
      if (!query()) form.budget.value = Math.min(BUDGET, model.users); // else nothing would load
      load(true, one.audience);
    },
    margin(value) {
      margin = value;
      soon();
    },
  };
}

/** The size of the audience and of the budget, and why places stay empty. */
function size({ users, budget, mode, gate, margin, users_where: where, users_total: total, above_boundary: above }) {
  const kept = gate || mode === "boundary";
  const at = margin ? `a margin of ${signed(margin)}` : "their boundary";
  const free = budget - users.length;
  const nobody = `nobody else${where ? " of whom the condition holds" : kept ? " who fits" : ""}`;
  const why = kept ? `${nobody} is above ${at}` : `${nobody} listened to anything near it`;
  const full = free > 0 ? `${many(free, "place")} stay empty: ${why}.` : "The budget is full.";
  const ignored = kept ? "" : ", which this mode does not ask for";
  const all = `${where ? "the" : "all"} ${many(total, "user")}${where ? " of whom it holds" : ""}`;
  const open = above === null ? "" : ` ${count(above)} of ${all} are above ${at}${ignored}.`;
  return [
    make("p", { class: "size" }, make("strong", {}, count(users.length)), ` of at most ${many(budget, "user")}`),
    bar(users.length, budget),
    make("p", { class: "faint" }, full, open),
  ];
}

function table({ users, above_boundary: above }, pickUser) {
  if (!users.length) return [make("p", {}, NOBODY)];
  const scores = users.map((user) => user.score);
  const [most, least] = [Math.max(...scores), Math.min(0, ...scores)]; // a ranker's scores are log-odds
  const bounded = above !== null;
  const names = ["#", "User and reason", "Score", bounded && "Margin"].filter(Boolean);
  const head = names.map((name) => make("th", { scope: "col" }, name));
  const figure = (...content) => make("td", { class: "figure" }, ...content);
  const rows = users.slice(0, LISTED).map((user) => {
    const open = { type: "button", class: "link", onclick: () => pickUser(user.user_id) };
    const name = make("th", { scope: "rowgroup" }, make("button", open, words(user.user_id)));
    const height = figure(bar(user.score, most, least), score(user.score));
    const margin = bounded && figure(signed(user.margin));
    const reason = make("td", { colspan: names.length - 1 }, ...reasons(user));
    const why = make("tr", { class: "why" }, make("td"), reason);
    return make("tbody", {}, make("tr", {}, figure(count(user.rank)), name, height, margin), why);
  });
  const whole = make("table", {}, make("thead", {}, make("tr", {}, ...head)), ...rows);
  const box = make("div", { class: "box", role: "region", tabindex: "0", "aria-label": "Users, best first" }, whole);
  return [make("p", { class: "faint" }, SCORE), box];
}

/** A button that saves the whole audience as CSV. */
function saver({ song_id: song, mode, users }) {
  const why = (user) => reasons(user).map((line) => line.textContent).join("; ");
  const save = () => {
    const rows = users.map((user) => [user.rank, user.user_id, user.score, user.margin, why(user)]);
    const url = URL.createObjectURL(new Blob([csv([["rank", "user_id", "score", "margin", "reason"], ...rows])]));
    make("a", { href: url, download: `audience of ${song} (${mode}).csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // after the browser has read it
  };
  return make("button", { type: "button", class: "save", onclick: save, disabled: !users.length }, "Save as CSV");
}

/** Comma-separated values (RFC 4180). */
function csv(rows) {
  const quoted = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  return rows.map((row) => row.map(quoted).join(",")).join("\r\n");
}

/** Why a user is in the audience: songs, and of a ranked one the channels with their places, what raised the score, and
 *  which songs a network looked at. */
function reasons(user) {
  const named = user.named_by?.map(({ channel, rank }) => `${CHANNELS[channel] ?? channel} (place ${count(rank)})`);
  const raised = user.raised_by?.map(({ words: feature, value }) => `${feature} (${known(value)})`);
  const looked = user.attended_to?.map((song) => `${title(song)} (${count(Math.round(100 * song.share))} %)`);
  const lines = [
    named?.length && `named by ${named.join(", ")}`,
    raised?.length && `raised by ${raised.join(", ")}`,
    looked?.length && `the ranker looked most at ${looked.join(", ")}`,
  ];
  const more = lines.filter(Boolean).map((line) => make("p", { class: "faint because" }, words(line)));
  return [because(user.because), ...more].filter(Boolean);
}

/** The value of a feature: a whole number or three digits; "unknown" without one. */
const known = (value) =>
  value === null ? "unknown" : Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(3)));

/** The songs in the user's history that explain the choice. */
export function because(songs) {
  if (!songs?.length) return null;
  const names = songs.flatMap((song, n) => [n ? ", " : "", words(title(song))]);
  return make("p", { class: "faint because" }, "listened to ", ...names);
}
