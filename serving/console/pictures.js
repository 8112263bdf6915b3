/** Waveform and spectrogram of a recording, redrawn when their box or the colours change. */

import { clock, make } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
let redraws = []; // of the pictures on the page
const boxes = new ResizeObserver(() => redraws.forEach((redraw) => redraw()));
dark.addEventListener("change", () => redraws.forEach((redraw) => redraw()));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Both pictures over one time axis. */
export function pictures({ seconds, waveform, spectrogram }) {
  const length = clock(seconds);
  const wave = make("canvas", { class: "wave", role: "img", "aria-label": `Waveform, ${length}` });
  const name = `Spectrogram, ${length}, low tones below`;
  const tones = make("canvas", { class: "tones", role: "img", "aria-label": name });
  const times = [0, 0.5, 1].map((part) => make("span", {}, clock(part * seconds)));
  const axis = make("div", { class: "times faint", "aria-hidden": "true" }, ...times);
  boxes.disconnect();
  redraws = [() => drawWave(wave, waveform), () => drawTones(tones, spectrogram)];
  [wave, tones].forEach((canvas) => boxes.observe(canvas)); // the first call draws, once there is a box
  return make("div", { class: "pictures" }, wave, tones, axis);
}

/** The canvas's context, at the resolution of the screen. */
function sized(canvas) {
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  return canvas.getContext("2d");
}

function drawWave(canvas, peaks) {
  const pen = sized(canvas);
  const { width, height } = canvas;
  const step = width / peaks.length;
  pen.fillStyle = colour("--accent");
  peaks.forEach((peak, n) => {
    const tall = Math.max(devicePixelRatio, peak * height);
    pen.fillRect(n * step, (height - tall) / 2, Math.max(step * 0.7, 0.5), tall);
  });
}

/** One pixel per frame and band, scaled up; colours from the panel's (silence) through the accent to the ink (loud). */
function drawTones(canvas, { frames, bands, data }) {
  if (!frames || !bands) return;
  const loud = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const shades = ["--box", "--accent", "--ink"].map((name) => parts(colour(name)));
  const image = new ImageData(frames, bands);
  for (let n = 0; n < frames * bands; n += 1) {
    const up = Math.floor(n / bands) + frames * (bands - 1 - (n % bands)); // low bands at the bottom
    image.data.set(mixed(shades, loud[n] / 255), 4 * up);
  }
  const small = new OffscreenCanvas(frames, bands);
  small.getContext("2d").putImageData(image, 0, 0);
  const pen = sized(canvas);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Parses #rrggbb to three numbers. */
const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function mixed([low, middle, high], share) {
  const [from, to, part] = share < 0.5 ? [low, middle, 2 * share] : [middle, high, 2 * share - 1];
  return [...from.map((value, n) => value + (to[n] - value) * part), 255];
}
