"""Synthesise the recordings of the demo world: twelve genre styles, varied by mood, traits and chance.

A song has five voices (bass, three chord notes, lead) and three drums. A voice plays one note at a time on a grid of
sixteenth notes, so synthesis is array arithmetic: one wavetable look-up per voice and sample. Genre sets tempo, rhythm,
timbre, envelope, register and mix, with a quarter of the numbers from the second genre; mood (valence, arousal) shifts
mode, tempo and brightness; traits shift drums, timbre, density and register. The theme shows in the text only.

Shapes: N samples, V voices, T steps (sixteenth notes), H harmonics.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from data.arrays import AnyArray, BoolArray, FloatArray

RATE = 16_000  # Hz
HARMONICS = 10
TABLE = 1024  # samples of one cycle


class Style(NamedTuple):
    """Style of a genre. Patterns have 16 steps, x = a note."""

    tempo: float  # beats a minute
    minor: float  # chance of a minor key, before mood
    root: float  # MIDI note of the chords' lowest root
    rolloff: float  # harmonic h has amplitude h^-rolloff
    even: float  # strength of the even harmonics
    attack: float  # seconds
    decay: float  # seconds
    swing: float  # delay of every second sixteenth, in sixteenths
    drive: float  # gain into a soft clipper
    hiss: float  # noise floor
    echo: float  # gain of a repeat one beat later
    drums: float  # gains
    bass: float
    chords: float
    lead: float
    density: float  # chance of a lead note a step
    kick: str
    snare: str
    hat: str
    comp: str  # rhythm of the chords


STYLES = {
    "pop": Style(
        116, 0.35, 60, 1.3, 0.8, 0.008, 0.40, 0.0, 0.8, 0.001, 0.15, 0.8, 0.6, 0.5, 0.7, 0.45,
        "x...x...x...x...", "....x.......x...", "x.x.x.x.x.x.x.x.", "x.....x...x....."),
    "rock": Style(
        132, 0.45, 52, 0.9, 0.9, 0.004, 0.60, 0.0, 3.0, 0.002, 0.05, 1.0, 0.7, 0.8, 0.5, 0.35,
        "x.....x.x.......", "....x.......x...", "x.x.x.x.x.x.x.x.", "x.x.x.x.x.x.x.x."),
    "metal": Style(
        168, 0.90, 45, 0.6, 1.0, 0.002, 0.30, 0.0, 8.0, 0.004, 0.00, 1.2, 0.9, 1.0, 0.4, 0.60,
        "x.xxx.xxx.xxx.xx", "....x.......x...", "x...x...x...x...", "x.xxx.xxx.xxx.xx"),
    "electronic": Style(
        128, 0.60, 57, 0.8, 0.3, 0.003, 0.15, 0.0, 1.5, 0.001, 0.35, 1.2, 0.9, 0.4, 0.5, 0.70,
        "x...x...x...x...", "............x...", "..x...x...x...x.", "..x...x...x...x."),
    "hip-hop": Style(
        88, 0.65, 55, 1.6, 0.6, 0.006, 0.30, 0.2, 1.2, 0.006, 0.05, 1.3, 1.1, 0.3, 0.25, 0.25,
        "x......x..x.....", "....x.......x...", "x.xxx.x.x.xxx.xx", "x..............."),
    "jazz": Style(
        144, 0.40, 58, 1.7, 0.9, 0.015, 0.35, 0.6, 0.6, 0.003, 0.10, 0.3, 0.8, 0.4, 0.9, 0.60,
        "x...............", "................", "x...x.x.x...x.x.", "...x......x....."),
    "classical": Style(
        92, 0.40, 62, 1.4, 0.9, 0.080, 1.50, 0.0, 0.3, 0.000, 0.25, 0.0, 0.5, 0.7, 0.8, 0.40,
        "................", "................", "................", "x.......x......."),
    "folk": Style(
        104, 0.30, 59, 1.2, 0.9, 0.003, 0.25, 0.0, 0.3, 0.002, 0.05, 0.1, 0.3, 0.9, 0.6, 0.40,
        "x.......x.......", "................", "................", "x.xxx.xxx.xxx.xx"),
    "ambient": Style(
        62, 0.50, 55, 2.0, 0.6, 0.400, 3.00, 0.0, 0.3, 0.008, 0.50, 0.0, 0.5, 1.0, 0.2, 0.10,
        "................", "................", "................", "x..............."),
    "reggae": Style(
        76, 0.35, 60, 1.5, 0.7, 0.004, 0.12, 0.1, 0.8, 0.002, 0.40, 0.7, 1.2, 0.7, 0.3, 0.25,
        "........x.......", "........x.......", "x.x.x.x.x.x.x.x.", "....x.......x..."),
    "latin": Style(
        104, 0.45, 63, 1.0, 0.8, 0.003, 0.20, 0.0, 0.7, 0.001, 0.05, 1.0, 0.7, 0.6, 0.8, 0.55,
        "x..x..x.x..x..x.", "..x..x....x.x...", "xxxxxxxxxxxxxxxx", "x..x..x...x.x..."),
    "blues": Style(
        80, 0.55, 54, 1.1, 1.0, 0.010, 0.50, 0.6, 1.8, 0.005, 0.10, 0.6, 0.8, 0.5, 0.8, 0.35,
        "x.......x.......", "....x.......x...", "x...x.x.x...x.x.", "x...x...x...x..."),
}  # fmt: skip
NUMBERS = 16  # the first fields of Style are numbers, the rest patterns
SCALES = {False: np.array([0, 2, 4, 7, 9]), True: np.array([0, 3, 5, 7, 10])}  # pentatonic, major and minor
TRIADS = {False: np.array([0, 4, 7]), True: np.array([0, 3, 7])}
ROOTS = {False: np.array([0, 5, 7, 9]), True: np.array([0, 3, 8, 10])}


class Recording(NamedTuple):
    """Parameters of one song's recording, and the file to write."""

    path: Path
    genre: str
    second: str | None
    mood: tuple[float, float]  # valence, arousal
    traits: tuple[float, ...]  # energy, brightness, density, warmth
    seconds: float
    seed: tuple[int, ...]


class Grid(NamedTuple):
    """Sample times, and the grid of sixteenth notes."""

    time_N: FloatArray
    edges_T: AnyArray  # seconds
    samples_T: AnyArray

    def hold(self, values_T: AnyArray) -> FloatArray:
        """Repeat the value of each step for its samples, (T,) → (N,)."""
        return np.repeat(values_T.astype(np.float32), self.samples_T)


def record(recording: Recording) -> None:
    """Synthesise one song and write it as a 16-bit mono FLAC file, deterministically."""
    encoded = io.BytesIO()  # one write per file: libsndfile makes many small ones
    soundfile.write(encoded, render(recording), RATE, subtype="PCM_16", format="FLAC")
    recording.path.write_bytes(encoded.getvalue())


def render(recording: Recording) -> FloatArray:
    """Synthesise the waveform (N,), float32 within -1 … 1."""
    rng = np.random.default_rng(recording.seed)
    style = _song_style(recording, rng)
    minor = bool(rng.random() < np.clip(style.minor - 0.45 * recording.mood[0], 0.03, 0.97))
    grid = _grid(style, recording.seconds)
    bright, dull = _tables(style, rng)
    (beat_T, root_1T), (comp_T, chord_3T), (motif_T, melody_1T) = _score(style, minor, len(grid.edges_T), rng)
    mix_N = style.bass * _voice(beat_T, root_1T, dull, dull, style, grid)
    mix_N += style.chords / 2 * _voice(comp_T, chord_3T, bright, dull, style, grid)
    mix_N += style.lead * _voice(motif_T, melody_1T, bright, dull, style, grid)
    mix_N = np.tanh(style.drive * mix_N) / np.tanh(max(style.drive, 1.0))
    noise_N = rng.standard_normal(len(mix_N), dtype=np.float32)
    mix_N += style.drums * _drums(style, grid, noise_N)
    beat = int(60 / style.tempo * RATE)
    mix_N[beat:] += style.echo * mix_N[:-beat].copy()
    mix_N += style.hiss * rng.lognormal(0, 0.5) * noise_N[::-1]
    return (mix_N * (rng.uniform(0.4, 0.9) / np.abs(mix_N).max())).astype(np.float32)


def _grid(style: Style, seconds: float) -> Grid:
    step = 15.0 / style.tempo  # seconds of a sixteenth
    time_N = (np.arange(int(seconds * RATE)) / RATE).astype(np.float32)
    step_T = np.arange(int(seconds / step) + 2)
    edges_T = (step_T + style.swing * (step_T % 2)) * step
    return Grid(time_N, edges_T, np.diff(np.searchsorted(time_N, edges_T), append=len(time_N)))


def _song_style(recording: Recording, rng: np.random.Generator) -> Style:
    """Blend the styles of both genres, ¾ and ¼, and vary them by mood, traits and chance."""
    own = STYLES[recording.genre]
    other = STYLES[recording.second] if recording.second else own
    blend = Style(*(0.75 * np.array(own[:NUMBERS]) + 0.25 * np.array(other[:NUMBERS])).tolist(), *own[NUMBERS:])
    energy, brightness, density, warmth = recording.traits
    chance = rng.normal(size=8)
    arousal = recording.mood[1]
    return blend._replace(
        tempo=blend.tempo * np.exp(0.2 * arousal + 0.04 * energy + 0.06 * chance[0]),
        root=blend.root + 2 * recording.mood[0] - 2 * warmth + rng.integers(-4, 5),
        rolloff=np.clip(blend.rolloff - 0.25 * arousal - 0.25 * brightness + 0.15 * chance[1], 0.3, 3.0),
        even=np.clip(blend.even + 0.2 * chance[2], 0.05, 1.2),
        attack=blend.attack * np.exp(-0.3 * arousal + 0.3 * chance[3]),
        decay=blend.decay * np.exp(0.25 * warmth + 0.25 * chance[4]),
        drums=blend.drums * np.exp(0.3 * energy + 0.35 * arousal + 0.2 * chance[5]),
        drive=blend.drive * np.exp(0.25 * energy + 0.2 * chance[6]),
        density=np.clip(blend.density * np.exp(0.25 * density + 0.15 * arousal + 0.15 * chance[7]), 0.03, 0.95),
    )


def _score(style: Style, minor: bool, steps: int, rng: np.random.Generator) -> tuple[tuple[BoolArray, AnyArray], ...]:
    """Onsets (T,) and MIDI pitches (V, T) of bass, chords and lead; a chord lasts half a bar."""
    step_T = np.arange(steps)
    root_T = round(style.root) + rng.permutation(ROOTS[minor])[(step_T // 8) % 4]
    sad_T = np.where(rng.random(4)[(step_T // 8) % 4] < 0.8, minor, not minor)
    triad_T3 = np.where(sad_T[:, None], TRIADS[True], TRIADS[False])
    motif = rng.random(16) < style.density  # the lead repeats its rhythm, with notes left out at random
    lead_T = motif[step_T % 16] & (rng.random(steps) < 0.85)
    degree_T = np.cumsum(rng.integers(-2, 3, size=steps)) % 10
    scale = SCALES[minor]
    melody_T = round(style.root) + 12 + scale[degree_T % 5] + 12 * (degree_T // 5)
    comp_T = _pattern(style.comp, steps) | (step_T == 0)
    bass_T = _pattern(style.kick, steps) | (step_T % 8 == 0)
    detune_V = 0.05 * rng.normal(size=(5, 1))
    pitch_VT = np.stack([root_T - 24, *(root_T + triad_T3.T), melody_T]) + detune_V
    return (bass_T, pitch_VT[:1]), (comp_T, pitch_VT[1:4]), (lead_T, pitch_VT[4:])


def _voice(
    onset_T: BoolArray, pitch_VT: AnyArray, bright: FloatArray, dull: FloatArray, style: Style, grid: Grid
) -> FloatArray:
    """Synthesise voices of one rhythm, (N,): wavetables read at each note's frequency, times its envelope."""
    since_N, left_N, note_T = _since(onset_T, grid)
    fade_N = np.exp(since_N / (-0.5 * style.decay))
    wave_N = np.zeros_like(since_N)
    for pitch_T in pitch_VT:
        frequency_T = TABLE * 440 * 2 ** ((pitch_T[note_T] - 69) / 12)
        at_N = (grid.hold(frequency_T) * since_N).astype(np.int32) & (TABLE - 1)
        wave_N += dull[at_N] + (bright - dull)[at_N] * fade_N  # overtones decay first, as on strings
    return wave_N * np.sqrt(fade_N) * (1 - np.exp(since_N / -style.attack)) * np.minimum(left_N / 0.01, 1)


def _since(onset_T: BoolArray, grid: Grid) -> tuple[FloatArray, FloatArray, AnyArray]:
    """Seconds (N,) since the current note's onset (60 before the first) and until the next; its step (T,)."""
    last_T = np.maximum.accumulate(np.where(onset_T, np.arange(len(onset_T)), -1))
    began_T = np.where(last_T >= 0, grid.edges_T[last_T], -60.0)
    later_T = np.minimum.accumulate(np.where(onset_T, grid.edges_T, 1e3)[::-1])[::-1]
    ends_T = np.append(later_T[1:], 1e3)
    return grid.time_N - grid.hold(began_T), grid.hold(ends_T) - grid.time_N, np.maximum(last_T, 0)


def _drums(style: Style, grid: Grid, noise_N: FloatArray) -> FloatArray:
    """Kick (a falling sine), snare (noise) and hat (high-passed noise), summed (N,)."""
    hits = (_pattern(pattern, len(grid.edges_T)) for pattern in (style.kick, style.snare, style.hat))
    kick_N, snare_N, hat_N = (_since(hit_T, grid)[0] for hit_T in hits)
    thump_N = np.sin(2 * np.pi * (50 * kick_N + 3.5 * (1 - np.exp(kick_N / -0.03)))) * np.exp(kick_N / -0.12)
    rustle_N = np.diff(noise_N, prepend=0)
    return thump_N + 0.4 * noise_N * np.exp(snare_N / -0.08) + 0.15 * rustle_N * np.exp(hat_N / -0.03)


def _tables(style: Style, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Wavetables (TABLE,) of a note's onset and decay, of equal energy: amplitude h^-rolloff at harmonic h."""
    harmonic_H = np.arange(1, HARMONICS + 1)
    timbre_H = np.where(harmonic_H % 2 == 0, style.even, 1.0) * (1 + 0.3 * rng.normal(size=HARMONICS))
    rolloff_21 = np.array([[style.rolloff], [style.rolloff + 1]])
    wave_2 = (timbre_H * harmonic_H**-rolloff_21) @ np.sin(2 * np.pi * np.outer(harmonic_H, np.arange(TABLE)) / TABLE)
    wave_2 *= 0.5 / np.sqrt((wave_2**2).mean(axis=1, keepdims=True))
    return wave_2[0].astype(np.float32), wave_2[1].astype(np.float32)


def _pattern(pattern: str, steps: int) -> BoolArray:
    return np.resize(np.frombuffer(pattern.encode(), dtype=np.uint8) == ord("x"), steps)
