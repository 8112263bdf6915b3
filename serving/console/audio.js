/** Audio players: recordings are fetched with the token and played from memory, one at a time. */

import { bytes, ofSong } from "./api.js";
import { make, say, title } from "./dom.js";
import { trouble } from "./panel.js";

const sound = new Audio();
let playing = null; // the button of the playing song

function quiet() {
  sound.pause();
  playing?.setAttribute("aria-pressed", "false");
  playing = null;
}
sound.addEventListener("ended", quiet);

/** Sets an element's source to a blob, and revokes the URL of the previous one. */
function load(element, blob) {
  if (element.src) URL.revokeObjectURL(element.src);
  element.src = URL.createObjectURL(blob);
}

/** A button that plays a song of a list, or a placeholder without a recording. Calls `onTrouble(message)` on failure,
 *  and with "" on a new try. */
export function playButton(song, onTrouble) {
  if (!song.has_audio) return make("span", { class: "play none", title: "No recording" });
  const name = { "aria-label": `Play ${title(song)}`, "aria-pressed": "false" };
  const button = make("button", { type: "button", class: "play", ...name });
  button.addEventListener("click", async () => {
    const stop = playing === button;
    onTrouble("");
    quiet();
    if (stop) return;
    playing = button;
    button.setAttribute("aria-pressed", "true");
    try {
      const blob = await bytes(ofSong(song.song_id, "audio"));
      if (playing !== button) return;
      load(sound, blob);
      await sound.play();
    } catch (error) {
      if (playing !== button) return;
      quiet();
      say(`${title(song)} cannot be played: ${error.message}`);
      onTrouble("Cannot be played");
    }
  });
  return button;
}

let large = null; // the player of the chosen song
sound.addEventListener("play", () => large?.pause());

/** A player with controls for the chosen song. */
export function player(song) {
  quiet();
  if (large?.src) URL.revokeObjectURL(large.src);
  const element = (large = make("audio", { controls: true, "aria-label": `Player of ${title(song)}`, onplay: quiet }));
  const box = make("div", { class: "player" }, element);
  const unfit = make("p", { class: "faint" }, "This browser cannot play the recording.");
  element.addEventListener("error", () => box.replaceChildren(unfit));
  bytes(ofSong(song.song_id, "audio")).then(
    (blob) => element === large && load(element, blob),
    (error) => box.replaceChildren(trouble(error, () => box.replaceWith(player(song)))),
  );
  return box;
}
