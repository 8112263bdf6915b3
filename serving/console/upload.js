/** Upload form for a new song: recording by drop or file dialog, text fields, progress and errors. */

import { newKey, Problem, upload, withQuery } from "./api.js";
import { $, make, percent, say } from "./dom.js";
import { trouble } from "./panel.js";

/** `query()` gives the audience's settings to send along; calls `onSong(song)` once accepted. */
export function setUpUpload(model, query, onSong) {
  const form = $("#upload form");
  let key = newKey(); // idempotency key of this content: resending adds no second song
  let running = null;
  setUpZone(form, model);
  form.addEventListener("input", () => (key = newKey()));
  form.addEventListener("change", () => (key = newKey()));
  $("#upload-cancel").addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    waiting(form, true);
    try {
      const content = checked(form, model);
      const settings = query();
      const song = await upload(withQuery("songs", settings ?? {}), content, key, progress, running.signal);
      form.reset();
      form.dispatchEvent(new Event("change"));
      onSong(song);
    } catch (error) {
      if (error.name === "AbortError") {
        say("Cancelled");
        $("button[type=submit]", form).focus(); // the other button disappears
      } else $("#upload-trouble").replaceChildren(trouble(error, () => form.requestSubmit()));
    }
    running = null;
    waiting(form, false);
  });
}

/** The form data of filled-in fields. Throws Problem for content that the service would refuse after the upload. */
function checked(form, model) {
  const content = new FormData();
  const file = form.audio.files[0];
  if (file && file.size > model.max_upload_mb * 2 ** 20)
    throw new Problem(413, `at most ${model.max_upload_mb} MB go through, and ${file.name} has ${size(file)}`);
  if (file) content.append("audio", file);
  for (const name of ["title", "lyrics", "language", "artist_id"])
    if (form[name].value.trim()) content.append(name, form[name].value.trim());
  for (const genre of form.genres.value.split(",")) if (genre.trim()) content.append("genres", genre.trim());
  if (![...content.keys()].length)
    throw new Problem(422, "there is nothing to go by: choose a recording or write something");
  return content;
}

const size = ({ size: bytes }) =>
  bytes < 2 ** 20 ? `${Math.ceil(bytes / 1024)} kB` : `${(bytes / 2 ** 20).toFixed(1)} MB`;

function waiting(form, on) {
  $("#upload-progress").hidden = !on;
  $("button[type=submit]", form).setAttribute("aria-disabled", String(on)); // `disabled` would lose the focus
  if (!on) return;
  $("#upload-trouble").replaceChildren();
  progress(0);
}

/** Progress of the upload, then indeterminate while the model works. */
function progress(share) {
  const bar = $("#upload-progress progress");
  if (share < 1) bar.value = share;
  else bar.removeAttribute("value");
  const stage = share < 1 ? `Uploading, ${percent(share)}` : "Listening and looking for listeners…";
  $("#upload-stage").textContent = stage;
}

/** Sets up the drop zone, the label of the file input: clickable, focusable and a drop target. */
function setUpZone(form, model) {
  const zone = $(".zone", form);
  const input = form.audio;
  const empty = $("#zone-name").textContent;
  const most = `At most ${model.max_upload_mb} MB;`;
  const hint = model.clip
    ? `${most} the middle ${Math.round(model.audio_seconds)} s are heard. Words alone will do too.`
    : `${most} kept, but this model does not hear: it knows songs by their words and tags.`;
  $("#zone-hint").textContent = hint;
  form.addEventListener("change", () => {
    const file = input.files[0];
    $("#zone-name").textContent = file ? file.name : empty;
    $("#zone-hint").textContent = file ? size(file) : hint;
    $("#zone-clear").hidden = !file;
  });
  $("#zone-clear").addEventListener("click", () => {
    input.value = "";
    form.dispatchEvent(new Event("change"));
    input.focus();
  });
  // a file dropped beside the zone would replace the page
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("dragover", (event) => zone.classList.toggle("over", zone.contains(event.target)));
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? zone.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    zone.classList.remove("over");
    const file = event.dataTransfer?.files[0];
    if (!file || !zone.contains(event.target)) return;
    const one = new DataTransfer(); // the first of the dropped files only
    one.items.add(file);
    input.files = one.files;
    form.dispatchEvent(new Event("change"));
  });
}
