/** The song card and the list of similar songs. */

import { ask, ofSong } from "./api.js";
import { player, playButton } from "./audio.js";
import { setUpCondition, UNREAD } from "./condition.js";
import { $, bar, clock, make, score, title, words } from "./dom.js";
import { outcomes } from "./outcomes.js";
import { panel } from "./panel.js";
import { pictures } from "./pictures.js";

const SIMILAR = "Similar songs, nearest first";

/** Labels of a song: genres, tags, language, and whether it was uploaded. */
export const chips = (song) => [
  ...(song.genres ?? []).map((name) => words(name, "chip")),
  ...(song.tags ?? []).map((name) => words(name, "chip soft")),
  song.language && words(song.language, "chip soft"),
  song.accepted && make("span", { class: "chip mark" }, "uploaded"),
];

/** Returns `show(song)`, which fills the card. */
export function setUpCard() {
  const body = $("#song .body");
  return (song) => {
    $("#song-h").textContent = title(song);
    const parts = make("div", { class: "columns" }, heard(song), guessed(song));
    body.replaceChildren(facts(song), outcomes(song), parts);
    if (song.lyrics) body.append(lyrics(song.lyrics));
  };
}

function facts(song) {
  const told = [
    song.artist_id && words(song.artist_id, "artist"),
    song.seconds && clock(song.seconds),
    make("span", { class: "id" }, "id ", words(song.song_id)),
  ];
  const items = told.filter(Boolean).map((one) => make("span", { class: "faint" }, one));
  return make("div", { class: "facts" }, ...items, ...chips(song));
}

/** The pictures and the player, or a note if the song has no recording. */
function heard(song) {
  if (!song.has_audio)
    return make("p", { class: "faint" }, "No recording: the model knows this song by its words alone.");
  const box = make("div", { class: "body" }, make("p", { class: "faint" }, "Asking for the picture…"));
  const whole = make("div", { class: "heard" }, box, player(song));
  panel(whole)((signal) => ask(ofSong(song.song_id, "picture"), {}, signal), (picture) => [pictures(picture)]);
  return whole;
}

function guessed(song) {
  const from = song.has_audio ? "what it hears" : "the words";
  const rows = (song.guessed ?? []).slice(0, 8);
  const most = Math.max(0, ...rows.map((row) => row.score));
  const lines = rows.map(({ label, score: value }) =>
    make("li", {}, words(label), bar(value, most), make("span", { class: "figure" }, score(value))),
  );
  const list = rows.length
    ? make("ol", { class: "bars" }, ...lines)
    : make("p", { class: "faint" }, "None: the model has no labels, or nothing of the song to compare them with.");
  const how = make("p", { class: "faint" }, `The labels nearest to ${from}, by cosine (zero-shot).`);
  return make("div", { class: "guessed" }, make("h3", {}, "Tags guessed"), rows.length ? how : null, list);
}

const lyrics = (text) =>
  make("details", {}, make("summary", {}, "Lyrics"), make("p", { class: "lyrics", dir: "auto" }, text));

/** Returns `show(song)`, which fills the list, from the song's own data if it has similar songs. */
export function setUpSimilar(model) {
  const fill = panel($("#similar"));
  const where = setUpCondition($("#similar [name=where]"), model.conditions.songs.example, () => load());
  let song = null;
  const found = async (asked, signal) => (await ask(ofSong(song.song_id, "similar"), asked, signal)).similar;
  function load() {
    if (song === null) return;
    const asked = { k: 20, where: where.value() };
    const none = asked.where ? "It holds of no known song." : "There is no known song to compare with.";
    fill(
      (signal) => where.read((asked.where === null && song.similar) || found(asked, signal)),
      (rows) => [rows?.length ? songRows(rows, SIMILAR) : make("p", {}, rows ? none : UNREAD)],
      true,
    );
  }
  return (one) => {
    song = one;
    load();
  };
}

/** A list of songs with scores and players; `named(row)` gives the name of one, `more(row)` what stands below it. */
export function songRows(rows, label, named = (row) => words(title(row)), more = () => null) {
  const most = Math.max(...rows.map((row) => row.score));
  const lines = rows.map((row) => {
    const name = make("div", { class: "name" }, named(row), words(row.artist_id ?? "", "faint"));
    const genres = make("div", { class: "chips" }, ...chips(row));
    const figure = make("span", { class: "figure" }, score(row.score));
    const unplayed = make("span", { class: "bad" });
    name.append(unplayed);
    const how = make("div", { class: "score" }, bar(row.score, most), figure);
    return make("li", {}, playButton(row, (why) => (unplayed.textContent = why)), name, genres, how, more(row));
  });
  return make("ol", { class: "rows box", tabindex: "0", "aria-label": label }, ...lines);
}
