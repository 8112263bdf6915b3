/** The search page (#search): songs by a text, by a recording, or by songs that came up. */

import { Problem, tell } from "./api.js";
import { songRows } from "./card.js";
import { $, make, many, say, title, words } from "./dom.js";
import { panel } from "./panel.js";

const MOST = 30; // songs that are shown
const COLUMNS = {
  language: "language", genre: "genres", artist_id: "artist_id", from: "released_at", until: "released_at",
}; // that the filters ask
const HINT = "Nothing is searched for yet.";
const NOTHING = "there is nothing to search by: describe the songs, or choose a recording";

/** Sets up the page; `pickSong` hears a click on a song. */
export function setUpSearch(model, pickSong) {
  const root = $("#search");
  const form = $("form", root);
  const fill = panel($(".split > div", root));
  const examples = $(".examples", root);
  const liking = new Map(); // songs that the search goes by, and whether they are liked
  const ids = (liked) => [...liking.values()].filter((one) => one.liked === liked).map((one) => one.song.song_id);
  for (const [name, column] of Object.entries(COLUMNS))
    form[name].closest("label").hidden = !(column in model.conditions.songs.columns);
  const unasked = () => fill(() => null, () => [make("p", { class: "faint" }, HINT)]);
  unasked();

  /** What the search goes by: examples, else a recording, else a text. */
  async function content() {
    if (liking.size) return { like: ids(true), dislike: ids(false) };
    const file = form.audio.files[0];
    if (!file && !form.text.value.trim()) throw new Problem(422, NOTHING);
    if (!file) return { text: form.text.value };
    if (file.size * 1.37 > model.max_upload_mb * 2 ** 20) // as base64
      throw new Problem(413, `at most ${Math.floor(model.max_upload_mb / 1.37)} MB of a recording can be sent`);
    return { audio: await base64(file) };
  }
  function search() {
    const answered = async (signal) =>
      tell("search", { ...(await content()), k: MOST, among: form.among.value, where: condition(form) }, signal);
    fill(answered, ({ songs }) => [found(songs)], true);
  }
  function found(songs) {
    say(songs.length ? `${many(songs.length, "song")} found` : "No song found");
    if (!songs.length) return make("p", {}, "No song matches.");
    const named = (song) => {
      const open = { type: "button", class: "link", onclick: () => pickSong(song.song_id) };
      return make("button", open, words(title(song)));
    };
    return songRows(songs, "Songs found, nearest first", named, (song) => {
      const more = make("button", { type: "button", class: "quiet", onclick: () => go(song, true) }, "More like this");
      const less = make("button", { type: "button", class: "quiet", onclick: () => go(song, false) }, "Not like this");
      const of = { role: "group", "aria-label": `Search by ${title(song)}` };
      return make("div", { class: "feedback", ...of }, more, ids(true).length ? less : null);
    });
  }
  /** Goes on from a song that came up: songs like it are meant, or not. */
  function go(song, liked) {
    form.text.value = form.audio.value = "";
    liking.set(song.song_id, { song, liked });
    showExamples();
    search();
    $("#search-h").focus(); // the button is gone
  }
  function showExamples() {
    examples.hidden = !liking.size;
    const chips = [...liking.values()].map(({ song, liked }) => {
      const drop = () => {
        liking.delete(song.song_id);
        if (!ids(true).length) liking.clear(); // what is not meant says nothing alone
        showExamples();
        if (liking.size) search();
        else unasked(); // the songs there were found by the examples
        $("#search-h").focus();
      };
      const label = `Without ${title(song)}`;
      const remove = make("button", { type: "button", class: "quiet", "aria-label": label, onclick: drop }, "×");
      return make("li", { class: "chip" }, liked ? "like " : "not like ", words(title(song)), " ", remove);
    });
    examples.replaceChildren(...chips);
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (form.text.value.trim() || form.audio.files.length) {
      liking.clear();
      showExamples();
    }
    search();
  });
  form.text.addEventListener("input", () => (form.audio.value = ""));
  form.audio.addEventListener("change", () => (form.text.value = ""));
}

/** The filters as a condition on songs; null without any. */
function condition(form) {
  const given = (name) => form[name].value.trim() && JSON.stringify(form[name].value.trim());
  const parts = [
    given("language") && `language == ${given("language")}`,
    given("genre") && `${given("genre")} in genres`,
    given("artist_id") && `artist_id == ${given("artist_id")}`,
    given("from") && `released_at >= ${given("from")}`,
    given("until") && `released_at <= ${given("until")}`,
  ];
  return parts.filter(Boolean).join(" and ") || null;
}

/** A file's content in base64. */
const base64 = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Problem(422, `${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
