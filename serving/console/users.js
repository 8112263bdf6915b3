/** User panel: the new songs above a user's boundary, and buttons that report plays and opt-outs to the service. */

import { ask, Problem, tell } from "./api.js";
import { because } from "./audience.js";
import { $, bar, current, debounced, make, many, say, signed, title, words } from "./dom.js";
import { optOut } from "./optout.js";
import { panel, searched, trouble } from "./panel.js";
import { chips } from "./card.js";

const FEEDBACK = {
  played: {},
  completed: { completed: true },
  favourited: { favourited: true },
  skipped: { skipped: true },
};
const PAGE = 8; // users per page of the list
const NONE = "The service has no boundary model, so nothing says which new songs are for a user.";

/** Functions `pick(user)`, of one who has not opted out, and `margin(value)`. `pickSong` hears a click on a song,
 *  `onPlay` an accepted play, `onOptOut` that a user has opted out, or in again. */
export function setUpUsers(model, pickSong, onPlay, onOptOut) {
  const fill = panel($("#recommended"));
  let user = null;
  let isOut = false; // what is known of it without a boundary model, whose answers say it
  let margin = model.margin;
  async function answer(asked, signal) {
    if (!model.boundary) return { user_id: user, opted_out: isOut, songs: null };
    return ask(`users/${encodeURIComponent(user)}/recommendations`, asked, signal);
  }
  function load(fresh) {
    if (user === null) return;
    const asked = { k: 20, margin };
    fill((signal) => answer(asked, signal), (given) => shown(given, asked.margin), fresh);
  }
  function shown(given, at) {
    const about = given.songs ? recommended(given, at, pickSong, onPlay) : [make("p", {}, NONE)];
    const consent = optOut(given.user_id, given.opted_out, changed);
    return [make("div", { class: "row" }, make("h3", {}, words(given.user_id)), consent), ...about];
  }
  function changed(out) {
    list();
    choose(user, out);
    onOptOut();
    $("#users-h").focus(); // the button is gone
  }
  const soon = debounced(load);
  function choose(id, out) {
    [user, isOut] = [id, out];
    current("user", id);
    load(true);
  }
  const entry = (row) => {
    const chosen = { "data-user": row.user_id, "aria-current": row.user_id === user && "true" };
    const plays = make("span", { class: "faint" }, many(row.plays, "play"), row.opted_out ? ", opted out" : "");
    const open = () => choose(row.user_id, row.opted_out);
    return make("button", { type: "button", ...chosen, onclick: open }, words(row.user_id), plays);
  };
  $("#recommended .body").append(make("p", { class: "faint" }, "Choose a user, here or in an audience."));
  const page = async (query, offset, signal) => {
    const { total, users } = await ask("users", { query, limit: Math.min(offset + PAGE, 1000) }, signal);
    return { total, rows: users.slice(offset) };
  };
  const list = searched($("#who"), page, entry, "users");
  list();
  return {
    pick(id) {
      choose(id, false);
      $("#users-h").focus();
    },
    margin(value) {
      margin = value;
      soon(false);
    },
  };
}

function recommended(answer, margin, pickSong, onPlay) {
  const { user_id: user, songs, opted_out: out } = answer;
  const at = margin ? `a margin of ${signed(margin)}` : "the user’s boundary";
  const told = songs.length
    ? `the ${songs.length} furthest above ${at}, of ${many(answer.considered, "new song")}`
    : out
      ? "this user has opted out, and gets nothing new"
      : `none of ${many(answer.considered, "new song")} is above ${at}: this user gets nothing new`;
  say(`${user}: ${told}`);
  const most = Math.max(...songs.map((song) => song.margin));
  const lines = songs.map((song) => line(user, song, most, pickSong, onPlay));
  const name = { tabindex: "0", "aria-label": "New songs, furthest above the boundary first" };
  const list = lines.length ? [make("ol", { class: "rows box", ...name }, ...lines)] : [];
  const head = make("p", { class: "faint" }, `${told[0].toUpperCase()}${told.slice(1)}.`);
  return [head, ...list];
}

function line(user, song, most, pickSong, onPlay) {
  const opening = { type: "button", class: "link", onclick: () => pickSong(song.song_id) };
  const open = make("button", opening, words(title(song)));
  const name = make("div", { class: "name" }, open, words(song.artist_id ?? "", "faint"));
  const figure = make("span", { class: "figure" }, signed(song.margin));
  const how = make("div", { class: "score" }, bar(song.margin, most), figure);
  const genres = make("div", { class: "chips" }, ...chips(song));
  return make("li", {}, name, genres, how, because(song.because), feedback(user, song, onPlay));
}

function feedback(user, song, onPlay) {
  const answer = make("div", { class: "answer" });
  const buttons = Object.entries(FEEDBACK).map(([name, fields]) => {
    const click = (event) => send(event.target, name, fields);
    return make("button", { type: "button", class: "quiet", onclick: click }, name);
  });
  async function send(button, name, fields) {
    if (button.getAttribute("aria-disabled") === "true") return; // one play per click
    button.setAttribute("aria-disabled", "true"); // `disabled` would lose the focus
    // with the song that led here, as feedback on the recommendation for the next training
    const source = song.because?.[0]?.song_id ?? null;
    const play = { user_id: user, song_id: song.song_id, source_song_id: source, ...fields };
    try {
      const { accepted, rejected } = await tell("plays", { plays: [play] });
      if (!accepted) throw new Problem(422, rejected[0]?.detail ?? "the play was not taken");
      button.setAttribute("aria-pressed", "true");
      answer.replaceChildren();
      say(`Recorded: ${user} ${name} ${title(song)}`);
      onPlay();
    } catch (error) {
      answer.replaceChildren(trouble(error));
    }
    button.removeAttribute("aria-disabled");
  }
  const name = { role: "group", "aria-label": `What became of ${title(song)}` };
  return make("div", { class: "feedback", ...name }, ...buttons, answer);
}
