"""Which sound files are read, how exactly and how fast, beside libsndfile alone, in turns on the same files.

    python -m benchmarks.speed.formats out=docs/results/data/formats.json

Makes a file of every format of FORMATS, a song of `seconds` in stereo. Of each it tells

- whether its length is that of a whole decoding by FFmpeg, and whether stretches are the same samples as there;
- processor seconds for an hour of audio, read whole;
- how many times as fast its middle 30 s are read as by libsndfile alone, as `prepare` once did it.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from benchmarks.measure import tell
from configs.load import command
from configs.options import at_least, opt
from data.arrays import FloatArray
from data.audio.recordings import read
from data.audio.sound_files import AudioError, PlainFile, opened

RATE, OPUS_RATE, MIDDLE = 44100, 48000, 30.0
PLACES = (0.0, 0.01, 0.2, 0.513, 0.8, 0.99)  # of the stretches, as shares of the length


@dataclass
class FormatsConfig:
    """Options of this benchmark."""

    seconds: float = opt(240.0, "length of each recording")
    rounds: int = opt(5, "rounds, in each of which both ways read every file")
    only: list[str] = opt([], "formats to measure (default: all)")
    out: str | None = opt(None, "file for the report (default: the screen only)")

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "seconds", "rounds")


def song(seconds: float, rate: int = RATE, seed: int = 0) -> FloatArray:
    """Two channels of tones that move, and noise, (N, 2)."""
    rng, time_N = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    tones = [(rng.uniform(80, 3000), rng.uniform(0.3, 3), rng.uniform(0.2, 1, 2)) for _ in range(6)]
    wave = rng.normal(0, 0.02, (len(time_N), 2)).astype(np.float32)
    for hertz, beat, sides in tones:
        envelope = 0.5 + 0.5 * np.sin(2 * np.pi * beat * time_N)
        wave += (0.08 * envelope * np.sin(2 * np.pi * hertz * time_N))[:, None].astype(np.float32) * sides
    return wave.astype(np.float32)


def by_soundfile(wave: FloatArray, kind: str, subtype: str, rate: int = RATE) -> bytes:
    """A file as libsndfile writes it; bit by bit, for libvorbis overflows its stack on an hour at once."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, wave.shape[1], subtype, format=kind) as sound:
        for start in range(0, len(wave), 65536):
            sound.write(wave[start : start + 65536])
    return file.getvalue()


def by_ffmpeg(wave: FloatArray, codec: str, container: str, rate: int = RATE, **options: str) -> bytes:
    """A file as FFmpeg writes it, of 16 bits where it can; options of the container begin with `mux_`."""
    muxing = {name[4:]: value for name, value in options.items() if name.startswith("mux_")}
    coding = {name: value for name, value in options.items() if not name.startswith("mux_")}
    with tempfile.NamedTemporaryFile() as file:  # some containers are rewritten at the end, by name
        with av.open(file.name, "w", format=container, options=muxing) as made:
            stream: Any = made.add_stream(codec, rate=rate, options=coding)
            layout = stream.layout = {1: "mono", 2: "stereo"}[wave.shape[1]]
            names = [kind.name for kind in stream.codec.audio_formats]
            stream.format = next(name for name in ("s16p", "s16", "fltp") if name in names)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            stream.codec_context.open()
            size = stream.codec_context.frame_size or 4096
            fitting = av.AudioResampler(stream.format, layout, rate, frame_size=size)
            for part in [*fitting.resample(frame), *fitting.resample(None), None]:
                made.mux(stream.encode(part))
        return Path(file.name).read_bytes()


def with_cover(data: bytes, size: int = 600_000) -> bytes:
    """A file with an ID3v2 tag in front that holds a picture."""
    picture = b"\0image/jpeg\0\3\0" + np.random.default_rng(0).bytes(size)
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    return b"ID3\3\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame + data


def without_size(data: bytes) -> bytes:
    """A WAV file as a recorder leaves it that was killed: all sizes 0."""
    at = data.index(b"data")
    return data[:4] + bytes(4) + data[8 : at + 4] + bytes(4) + data[at + 8 :]


def without_total(data: bytes) -> bytes:
    """A FLAC file as a pipe makes it: the number of samples (36 bits) is 0."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def silent_start(wave: FloatArray) -> FloatArray:
    """The same with its first twentieth silent: the first frame of an MP3 file is then a small one."""
    return np.concatenate([np.zeros_like(wave[: len(wave) // 20]), wave[len(wave) // 20 :]])


def cbr(wave: FloatArray, **options: str) -> bytes:
    """MP3 at 128 kbit/s."""
    return by_ffmpeg(wave, "libmp3lame", "mp3", RATE, b="128000", **options)


def vbr(wave: FloatArray, **options: str) -> bytes:
    """MP3 at a variable bitrate (lame -V 2)."""
    return by_ffmpeg(wave, "libmp3lame", "mp3", RATE, flags="+qscale", global_quality=str(2 * 118), **options)


def ogg(wave: FloatArray) -> bytes:
    """Ogg Vorbis."""
    return by_soundfile(wave, "OGG", "VORBIS")


def opus(wave: FloatArray) -> bytes:
    """Ogg Opus."""
    return by_soundfile(wave, "OGG", "OPUS", OPUS_RATE)


def m4a(wave: FloatArray) -> bytes:
    """AAC in M4A."""
    return by_ffmpeg(wave, "aac", "ipod")


FORMATS: dict[str, Callable[[FloatArray], bytes]] = {
    "WAV, 16 bits": lambda wave: by_soundfile(wave, "WAV", "PCM_16"),
    "WAV, 32-bit float": lambda wave: by_soundfile(wave, "WAV", "FLOAT"),
    "WAV, data size 0": lambda wave: without_size(by_soundfile(wave, "WAV", "PCM_16")),
    "RF64": lambda wave: by_soundfile(wave, "RF64", "PCM_16"),
    "W64": lambda wave: by_soundfile(wave, "W64", "PCM_16"),
    "AIFF": lambda wave: by_soundfile(wave, "AIFF", "PCM_16"),
    "CAF": lambda wave: by_soundfile(wave, "CAF", "PCM_16"),
    "FLAC": lambda wave: by_soundfile(wave, "FLAC", "PCM_16"),
    "FLAC, streamed (total 0)": lambda wave: without_total(by_soundfile(wave, "FLAC", "PCM_16")),
    "FLAC, ID3v2 in front": lambda wave: with_cover(by_soundfile(wave, "FLAC", "PCM_16")),
    "FLAC in Ogg": lambda wave: by_ffmpeg(wave, "flac", "ogg"),
    "MP3, CBR": cbr,
    "MP3, VBR": vbr,
    "MP3, VBR without Xing": lambda wave: vbr(silent_start(wave), mux_write_xing="0"),
    "MP3, cover of 600 kB": lambda wave: with_cover(cbr(wave)),
    "MP3, two in one file": lambda wave: vbr(wave[: len(wave) // 2]) + cbr(wave[len(wave) // 2 :]),
    "Ogg Vorbis": ogg,
    "Ogg Vorbis, chained": lambda wave: ogg(wave[: len(wave) // 2]) + ogg(wave[len(wave) // 2 :]),
    "Ogg Opus": opus,
    "Ogg Opus, chained": lambda wave: opus(wave[: len(wave) // 2]) + opus(wave[len(wave) // 2 :]),
    "AAC in M4A": m4a,
    "ALAC in M4A": lambda wave: by_ffmpeg(wave, "alac", "ipod"),
    "AAC, ADTS": lambda wave: by_ffmpeg(wave, "aac", "adts"),
    "WMA": lambda wave: by_ffmpeg(wave, "wmav2", "asf", b="128000"),
    "WebM, Opus": lambda wave: by_ffmpeg(wave, "libopus", "webm", OPUS_RATE),
    "WavPack": lambda wave: by_ffmpeg(wave, "wavpack", "wv"),
}


def main(config: FormatsConfig) -> None:
    """Run the command (see the module's docstring)."""
    versions = {"av": av.__version__, "soundfile": soundfile.__version__}
    rows, wave = [], {rate: song(config.seconds, rate) for rate in (RATE, OPUS_RATE)}
    with tempfile.TemporaryDirectory() as folder:
        for name in config.only or FORMATS:
            path = Path(folder) / "song"
            path.write_bytes(FORMATS[name](wave[OPUS_RATE if "Opus" in name else RATE]))
            rows.append({"format": name} | measured(path, config.rounds))
            print(rows[-1])
    tell(config, {"versions": versions, "formats": rows})


def measured(path: Path, rounds: int) -> dict[str, Any]:
    """One file: by what it is read, how exactly, and how fast beside libsndfile alone."""
    expected_CN = whole(path)
    length = expected_CN.shape[1]
    with opened(path) as sound:
        found = {"by": "libsndfile" if isinstance(sound, PlainFile) else "FFmpeg", "length": sound.length == length}
        starts, count = [int(place * length) for place in PLACES], sound.rate
        seconds = length / sound.rate
        try:
            apart = max(largest(sound.read(at, count), expected_CN[:, at : at + count]) for at in starts)
        except AudioError:
            apart = float("inf")
    times: dict[str, list[float]] = {"whole": [], "middle": [], "soundfile": []}
    for _ in range(rounds):
        times["whole"].append(spent(lambda: read(path, seconds + 1)))
        times["middle"].append(spent(lambda: read(path, MIDDLE)))
        times["soundfile"].append(spent(lambda: before(path, MIDDLE)))
    median = {name: float(np.median(values)) for name, values in times.items()}
    old = before(path, seconds + 1)
    return found | {
        "difference": apart if np.isfinite(apart) else None,
        "seconds_an_hour": 3600 / seconds * median["whole"],
        "middle_ms": 1000 * median["middle"],
        "soundfile_length": None if old is None else abs(len(old) - length) <= 1,
        "soundfile_middle_ms": None if old is None else 1000 * median["soundfile"],
    }


def whole(path: Path) -> FloatArray:
    """All samples from the first to the last, (C, N), by a plain loop over FFmpeg's packets; else by libsndfile.

    A packet that cannot be decoded is silence, as in any player.
    """
    try:
        parts, fitting = list[Any](), av.AudioResampler("fltp")
        with av.open(str(path)) as file:
            stream = file.streams.audio[0]
            for packet in file.demux(stream):
                try:
                    frames = [part for frame in stream.decode(packet) for part in fitting.resample(frame)]
                    parts += [frame.to_ndarray() for frame in frames]
                except av.InvalidDataError:
                    lost = round(float((packet.duration or 0) * (stream.time_base or 0)) * stream.rate)
                    parts.append(np.zeros((len(parts[-1]) if parts else 1, lost), np.float32))
            parts += [frame.to_ndarray() for frame in fitting.resample(None)]
        return np.concatenate(parts, axis=1)
    except av.FFmpegError:
        samples: FloatArray = soundfile.read(path, dtype="float32", always_2d=True)[0].T
        return samples


def largest(one_CN: FloatArray, other_CN: FloatArray) -> float:
    """The largest difference of two stretches; infinite where one is shorter."""
    return float(np.abs(one_CN - other_CN).max()) if one_CN.shape == other_CN.shape else float("inf")


def before(path: Path, seconds: float) -> FloatArray | None:
    """The middle of a recording as `prepare` read it with libsndfile alone; None where it refused it."""
    try:
        with soundfile.SoundFile(path) as sound:
            wanted = min(sound.frames, round(seconds * sound.samplerate))
            sound.seek((sound.frames - wanted) // 2)
            samples_NC = sound.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError):
        return None
    mean: FloatArray = samples_NC.mean(axis=1)
    return mean if 0 < 0.95 * wanted <= len(mean) and np.isfinite(mean).all() else None


def spent(run: Callable[[], Any]) -> float:
    """Processor seconds of this process: other work on the machine counts little."""
    started = time.process_time()
    try:
        run()
    except AudioError:
        return float("nan")
    return time.process_time() - started


HEAD = (
    "format", "read by", "length exact", "seek exact", "seconds an hour of audio", "libsndfile alone",
    "middle 30 s, ours over it",
)  # fmt: skip


def rows(report: dict[str, Any]) -> list[list[str]]:
    """The report as rows of a table."""
    found = []
    for row in report["formats"]:
        apart = row["difference"]
        exact = "yes" if apart == 0 else "no" if apart is None or apart >= 1 else f"to {apart:.0e} of full scale"
        old = {None: "not read", True: "read", False: "length wrong"}[row["soundfile_length"]]
        ratio = f"{row['soundfile_middle_ms'] / row['middle_ms']:.2f}" if row["soundfile_length"] else "–"
        seconds = f"{row['seconds_an_hour']:.1f}"
        found.append([row["format"], row["by"], "yes" if row["length"] else "no", exact, seconds, old, ratio])
    return found


if __name__ == "__main__":
    command(main, FormatsConfig, __doc__)
