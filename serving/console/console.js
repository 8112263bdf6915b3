/** The console: connects the panels, and shows the song of the address (#song=ID) in them. */

import { ask, ofSong } from "./api.js";
import { setUpAudience } from "./audience.js";
import { setUpBoundary } from "./boundary.js";
import { chips, setUpCard, setUpSimilar } from "./card.js";
import { setUpClusters } from "./clusters.js";
import { $, count, current, make, many, say, title, words } from "./dom.js";
import { panel, searched, trouble } from "./panel.js";
import { setUpSearch } from "./search.js";
import { setUpToken } from "./token.js";
import { setUpUpload } from "./upload.js";
import { setUpUsers } from "./users.js";

const PAGE = 20; // songs per page of the list
const narrow = matchMedia("(max-width: 70rem)");
const chosenId = () => new URLSearchParams(location.hash.slice(1)).get("song"); // or null
let uploaded = null; // the response to the last upload, to avoid a second request

async function begin() {
  $("#down").replaceChildren();
  try {
    const model = await ask("model");
    $("#main").hidden = false;
    tellModel(model);
    connect(model);
  } catch (error) {
    $("#down").replaceChildren(trouble(error, begin));
  }
}

function tellModel(model) {
  const facts = [
    `model ${model.version.slice(0, 12)}`,
    many(model.users, "user"),
    many(model.known_songs, "known song"),
    `${many(model.new_songs, "new song")}, ${count(model.accepted_songs)} uploaded`,
    `${many(model.plays_received, "play")} received`,
  ];
  $("#model").textContent = facts.join(" · ");
  const late = `A newer model was not taken: ${model.reload_error}`;
  $("#down").replaceChildren(...(model.reload_error ? [make("p", { class: "trouble" }, late)] : []));
}

const refresh = () => ask("model").then(tellModel, () => {}); // counts in the header; optional

/** Sets up the panels and connects their events. */
function connect(model) {
  const pickSong = (id) => (location.hash = `song=${encodeURIComponent(id)}`);
  let shown = null; // the song in the panels
  const users = setUpUsers(model, pickSong, refresh, () => {
    uploaded = null; // it says who was in its audience
    if (shown) naming.forEach((part) => part({ ...shown, audience: null }));
  });
  const boundary = setUpBoundary(model, (margin) => {
    audience.margin(margin);
    users.margin(margin);
  });
  const audience = setUpAudience(model, boundary.exact, users.pick);
  const clusters = setUpClusters(model, users.pick);
  const naming = [boundary.show, audience.show, clusters]; // what names users, or counts them
  const open = setUpResult([setUpCard(), setUpSimilar(model), ...naming, (song) => (shown = song)]);
  setUpSearch(model, pickSong);
  const list = setUpList(pickSong);
  setUpUpload(model, audience.query, (song) => {
    uploaded = song;
    list();
    refresh();
    say(`${title(song)} is in`);
    pickSong(song.song_id);
  });
  window.addEventListener("hashchange", () => open(true));
  list();
  open(false);
}

/** Sets up the list of new songs; returns the function that reloads it. */
function setUpList(pickSong) {
  const entry = (song) => {
    const about = [song.artist_id && words(song.artist_id, "faint"), ...chips(song)];
    const chosen = { "data-song": song.song_id, "aria-current": song.song_id === chosenId() && "true" };
    const open = { type: "button", ...chosen, onclick: () => pickSong(song.song_id) };
    return make("button", open, words(title(song)), make("span", { class: "chips" }, ...about));
  };
  const page = async (query, offset, signal) => {
    const { total, songs } = await ask("songs", { query, offset, limit: PAGE }, signal);
    return { total, rows: songs };
  };
  return searched($("#known"), page, entry, "new songs");
}

/** Returns a function that shows the song of the address in all `parts`; `byHand`: and scrolls to it. */
function setUpResult(parts) {
  const [empty, about] = [$("#empty"), $("#about")];
  const nothing = [...$(".body", empty).childNodes];
  const fill = panel(empty);
  const shown = (on) => ([about.hidden, empty.hidden] = [!on, on]);
  async function song(id, signal) {
    try {
      return uploaded?.song_id === id ? uploaded : await ask(ofSong(id), {}, signal);
    } catch (error) {
      if (!signal.aborted) shown(false);
      throw error;
    }
  }
  return (byHand) => {
    const id = chosenId();
    current("song", id);
    const searching = location.hash === "#search";
    $("#search").hidden = !searching;
    if (searching) {
      [about.hidden, empty.hidden] = [true, true];
      fill(async () => null, () => nothing);
      document.title = "Search · FirstPlay";
      if (byHand) lead($("#search-h"));
      return;
    }
    if (id === null) return shown(false), fill(async () => null, () => nothing);
    fill((signal) => song(id, signal), (answer) => {
      shown(true);
      document.title = `${title(answer)} · FirstPlay`;
      parts.forEach((part) => part(answer));
      if (byHand) lead($("#song-h"));
      return nothing;
    });
  };
}

/** Focuses a heading and scrolls to it: on a narrow page it is far below. */
function lead(heading) {
  heading.focus({ preventScroll: true });
  heading.scrollIntoView({ block: narrow.matches ? "start" : "nearest" });
}

// handled here: the link itself would replace the song in the address
$(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("#result").focus();
});
setUpToken();
begin();
