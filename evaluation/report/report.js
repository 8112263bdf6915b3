// The song maps come alive: pointing at a song, or the keyboard, shows its title and genre, and in every map the songs
// that are nearest to it there. Titles are read out of the drawing and written as text, never as markup; the numbers of
// the nearest songs stand in data-near. Without this script the maps are the same pictures, with titles as tooltips.
"use strict";

const holders = [...document.querySelectorAll("[data-near]")];
const maps = holders.map((holder) => {
  const svg = holder.querySelector("svg");
  const songs = [...svg.querySelectorAll("path")];
  const links = document.createElementNS(svg.namespaceURI, "path");
  links.setAttribute("class", "links");
  svg.prepend(links);
  const near = holder.dataset.near.split(";").map((row) => row.split(" ").filter(Boolean).map(Number));
  return { name: holder.querySelector("h3").textContent, svg, songs, links, near, places: [] };
});
const told = maps.length ? maps[0].songs.map((song) => song.textContent) : [];
const card = document.createElement("div");
let picked = -1;

/** Where the songs of a map are, measured when they are first asked for. */
function places(map) {
  if (!map.places.length) {
    map.places = map.songs.map((song) => {
      const box = song.getBBox();
      return [box.x + box.width / 2, box.y + box.height / 2];
    });
  }
  return map.places;
}

/** Show a song and its nearest in all maps; −1: none. */
function pick(song) {
  if (song === picked) return;
  picked = song;
  for (const map of maps) {
    const near = map.near[song] ?? [];
    map.svg.classList.toggle("picked", song >= 0);
    map.svg.querySelectorAll(".on, .near").forEach((path) => path.classList.remove("on", "near"));
    map.songs[song]?.classList.add("on");
    near.forEach((other) => map.songs[other].classList.add("near"));
    const at = places(map);
    map.links.setAttribute("d", near.map((other) => `M${at[song]}L${at[other]}`).join(""));
  }
  tell(song);
}

/** Write what the card says: the song, and a line for each map; or how to get there. */
function tell(song) {
  const line = (kind, ...parts) => {
    const made = document.createElement(kind);
    made.append(...parts);
    return made;
  };
  if (song < 0) {
    card.replaceChildren("Point at a song. With the keyboard: Tab to a map, arrow keys to the next song that way, "
      + "Enter to the most similar one, Escape to let go.");
    return;
  }
  const lines = maps.map((map) => {
    const names = map.near[song].map((other) => told[other]);
    return line("li", line("b", map.name), ": ", names.join("; ") || "nothing is near");
  });
  card.replaceChildren(line("strong", told[song]), line("p", "Nearest, of the songs drawn"), line("ul", ...lines));
}

/** The song nearest to a place of a map, within a finger's width. */
function at(map, x, y) {
  let best = -1;
  let least = 15 ** 2;
  places(map).forEach(([left, top], song) => {
    const far = (left - x) ** 2 + (top - y) ** 2;
    if (far <= least) [best, least] = [song, far];
  });
  return best;
}

/** The next song of a map in a direction: not far, and not far off it. */
function next(map, across, down) {
  const [x, y] = places(map)[picked];
  let best = picked;
  let least = Infinity;
  places(map).forEach(([left, top], song) => {
    const ahead = (left - x) * across + (top - y) * down;
    const aside = Math.abs((left - x) * down) + Math.abs((top - y) * across);
    if (song !== picked && ahead > 0 && ahead + 2 * aside < least) [best, least] = [song, ahead + 2 * aside];
  });
  return best;
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function press(map, event) {
  if (event.key === "Escape") pick(-1);
  else if (picked < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  else if (event.key in WAYS) pick(next(map, ...WAYS[event.key]));
  else if (event.key === "Enter") pick(map.near[picked][0] ?? picked);
  else return;
  event.preventDefault();
}

function point(map, event) {
  const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.svg.getScreenCTM().inverse());
  const song = at(map, spot.x, spot.y);
  if (song >= 0) pick(song);
}

for (const map of maps) {
  map.songs.forEach((song) => song.replaceChildren()); // the card says it, and nearer to the eye than a tooltip
  map.svg.setAttribute("tabindex", "0");
  map.svg.setAttribute("role", "application"); // so that a screen reader hands the arrow keys on
  map.svg.addEventListener("pointermove", (event) => point(map, event));
  map.svg.addEventListener("pointerdown", (event) => point(map, event));
  map.svg.addEventListener("focus", () => { // by the keyboard: start at a new song, where there is one
    if (picked < 0 && map.svg.matches(":focus-visible")) pick(map.songs.length - 1);
  });
  map.svg.addEventListener("keydown", (event) => press(map, event));
}
if (maps.length) {
  card.className = "song";
  card.setAttribute("role", "status");
  holders[0].parentElement.after(card);
  tell(-1);
}
