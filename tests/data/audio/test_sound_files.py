"""Sound files of every format: the length of what decodes, any stretch to the sample, and what of them is broken."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.formats import (
    FORMATS,
    OPUS_RATE,
    RATE,
    by_ffmpeg,
    by_soundfile,
    cbr,
    m4a,
    ogg,
    opus,
    song,
    vbr,
    whole,
    without_total,
)
from data.audio.sound_files import WARM_UP, AudioError, CodedFile, _is_joined, opened

SECONDS = 3.0
LOSSLESS = ("WAV", "RF64", "W64", "AIFF", "CAF", "FLAC", "ALAC", "WavPack")


def wave_of(name: str) -> np.ndarray:
    return song(SECONDS, OPUS_RATE if "Opus" in name else RATE)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_to_the_end_and_entered_anywhere(tmp_path: Path, name: str) -> None:
    """Against a plain loop over all packets, and against what was encoded."""
    wave, path = wave_of(name), tmp_path / "song"
    path.write_bytes(FORMATS[name](wave))
    expected = whole(path)
    with opened(path) as sound:
        assert (sound.length, sound.channels, sound.is_cut) == (expected.shape[1], 2, False)
        for start in (0, 1, 700, 44_100, int(1.7 * sound.rate), sound.length - 5000, 300):
            count = min(9000, sound.length - start)
            np.testing.assert_array_equal(sound.read(start, 9000), expected[:, start : start + count], str(start))
            assert not sound.has_gaps
        assert sound.read(sound.length, 5).shape == sound.read(sound.length + 9, 5).shape == (2, 0)
    assert abs(expected.shape[1] - len(wave)) <= 4 * 1152, "coders add up to a few frames"
    if name.startswith(LOSSLESS):
        assert expected.shape[1] == len(wave)
        np.testing.assert_allclose(expected.T, wave, atol=1 / 32768)
    with opened(io.BytesIO(path.read_bytes())) as sound:
        assert sound.length == expected.shape[1]


def test_the_warm_up_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: entered without what comes before, an Opus file is not the same."""
    path = tmp_path / "song"
    path.write_bytes(opus(wave_of("Opus")))
    with opened(path) as sound:
        before = sound.read(OPUS_RATE, 9000)
        monkeypatch.setattr("data.audio.sound_files.WARM_UP", 0.0)
        assert WARM_UP > 0 and np.abs(sound.read(OPUS_RATE, 9000) - before).max() > 1e-3


BROKEN: dict[str, tuple[Callable[[np.ndarray], bytes], float]] = {  # of 3 s: file, seconds that are in it
    "wav": (lambda wave: by_soundfile(wave, "WAV", "PCM_16"), 1.5),
    "aiff": (lambda wave: by_soundfile(wave, "AIFF", "PCM_16"), 1.5),
    "flac": (lambda wave: by_soundfile(wave, "FLAC", "PCM_16"), 1.5),
    "mp3": (cbr, 1.5),
    "m4a": (lambda wave: by_ffmpeg(wave, "aac", "ipod", mux_movflags="faststart"), 1.5),
    "wv": (lambda wave: by_ffmpeg(wave, "wavpack", "wv"), 1.5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_of_a_file_that_is_cut_short_what_is_there_is_read(name: str) -> None:
    data = BROKEN[name][0](song(SECONDS))
    with opened(io.BytesIO(data[: len(data) // 2])) as sound:
        assert sound.is_cut and sound.length == pytest.approx(1.5 * RATE, rel=0.15)
        assert np.abs(sound.read(sound.length - 20_000, 10_000)).max() > 0.05


DAMAGED = {name: BROKEN[name][0] for name in ("mp3", "flac", "m4a", "wv")}
DAMAGED |= {
    "mp3 with a header": lambda wave: by_ffmpeg(wave, "libmp3lame", "mp3"),
    "adts": lambda wave: by_ffmpeg(wave, "aac", "adts"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_lost_within_is_told(name: str) -> None:
    """Random bytes or zeros, behind which WavPack may end; of the whole file nothing is lost, whatever part is read."""
    data = DAMAGED[name](song(8.0))
    middle, noise = len(data) // 2, np.random.default_rng(0).bytes(3000)
    with opened(io.BytesIO(data)) as sound:
        for start, count in ((0, sound.length), (RATE, 2 * RATE), (5 * RATE, RATE), (sound.length - 999, 5000)):
            sound.read(start, count)
            assert not sound.has_gaps
    for put in (noise, bytes(3000)):
        with opened(io.BytesIO(data[:middle] + put + data[middle + len(put) :])) as sound:
            sound.read(RATE, RATE)
            assert not sound.has_gaps, "before it"
            with suppress(AudioError):
                sound.read(RATE, sound.length - 2 * RATE)
            assert sound.has_gaps or sound.is_cut


def test_a_stream_that_does_not_say_how_long_it_is_is_not_cut() -> None:
    wav = bytearray(by_soundfile(song(1), "WAV", "PCM_16"))
    for size in (b"\xff\xff\xff\xff", b"\x24\xf0\xff\x7f"):  # as ffmpeg and sox write it into a pipe
        wav[4:8], wav[40:44] = size, size
        with opened(io.BytesIO(bytes(wav))) as sound:
            assert (sound.length, sound.is_cut) == (RATE, False)
    aiff = bytearray(by_soundfile(song(1), "AIFF", "PCM_16"))
    aiff[4:8] = b"\x7f\x00\x00\x50"  # as sox
    with opened(io.BytesIO(bytes(aiff))) as sound:
        assert (sound.length, sound.is_cut) == (RATE, False)


def test_a_caf_file_from_a_pipe_is_read(tmp_path: Path) -> None:
    """Its size is -1, as the format has it where it is not known; libsndfile does not take it."""
    data = bytearray(by_soundfile(song(1), "CAF", "PCM_16"))
    at = data.index(b"data") + 4
    whole, data[at : at + 8] = bytes(data), b"\xff" * 8
    (tmp_path / "song").write_bytes(data)
    with opened(io.BytesIO(whole)) as known:
        for file in (tmp_path / "song", io.BytesIO(bytes(data))):
            with opened(file) as sound:
                assert isinstance(sound, CodedFile) and (sound.length, sound.is_cut) == (RATE, False)
                for start in (0, 700, RATE - 900):
                    np.testing.assert_array_equal(sound.read(start, 900), known.read(start, 900))


def test_an_ogg_chain_of_other_rates_is_read_as_far_as_ffmpeg_goes() -> None:
    data = ogg(song(2)) + by_soundfile(song(2, 22050)[:, :1], "OGG", "VORBIS", 22050)
    with opened(io.BytesIO(data)) as sound:
        assert (sound.length, sound.rate, sound.is_cut) == (2 * RATE, RATE, True)


def test_flac_files_one_after_another_are_all_read(tmp_path: Path) -> None:
    """The second longer or shorter than the first, behind tags, or of another rate; in blocks that cut it."""
    long, short = song(3.2), song(1.1)[::-1]
    flac = {len(wave): by_soundfile(wave, "FLAC", "PCM_16") for wave in (long, short)}
    for waves in ([long, short], [short, long], [long, short, short]):
        data = b"".join(flac[len(wave)] for wave in waves)
        for front in (b"", b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)):
            with opened(io.BytesIO(front + data)) as sound:
                assert (sound.length, sound.is_cut) == (sum(map(len, waves)), False)
                wanted = np.concatenate(waves).T
                for start in (0, 60_000, sound.length - 30_000):
                    np.testing.assert_allclose(sound.read(start, 9000), wanted[:, start : start + 9000], atol=1 / 32768)
    other = by_soundfile(song(1.1, 22050), "FLAC", "PCM_16", 22050)
    with opened(io.BytesIO(flac[len(long)] + other)) as sound:
        assert (sound.length, sound.is_cut) == (len(long), True), "which is counted and named"
    for at in range((1 << 20) - 8, (1 << 20) + 2):
        file = io.BytesIO(flac[len(long)][:42].ljust(at, b"x") + flac[len(short)])
        assert _is_joined(file) and file.tell() == 0
    assert not _is_joined(io.BytesIO(flac[len(long)]))


def test_mono_after_stereo_in_one_mp3_file() -> None:
    data = cbr(song(2), mux_write_xing="0", mux_id3v2_version="0") + cbr(song(2)[:, :1], mux_write_xing="0")
    with opened(io.BytesIO(data)) as sound:
        assert sound.channels == 2 and sound.length == pytest.approx(4 * RATE, abs=4000)
        end = sound.read(3 * RATE, RATE // 2)
        assert np.array_equal(end[0], end[1]) and np.abs(end).max() > 0.05


def test_tags_in_other_encodings_are_no_fault() -> None:
    """PyAV refuses a file for a title in GBK unless it is told otherwise (findings/pyav_title_in_gbk.sh)."""
    data = bytearray(by_soundfile(song(1), "WAV", "PCM_16"))
    title = "月光".encode("gbk")
    info = b"LIST" + (12 + len(title)).to_bytes(4, "little") + b"INFOINAM" + len(title).to_bytes(4, "little") + title
    data[40:44] = bytes(4)  # FFmpeg reads it: the size of its data is 0
    data[36:36] = info
    with opened(io.BytesIO(bytes(data))) as sound:
        assert isinstance(sound, CodedFile) and sound.length == RATE


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:3,\n{path}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{path}'\n"]
)
def test_no_file_leads_to_another(tmp_path: Path, text: str) -> None:
    (tmp_path / "song.flac").write_bytes(by_soundfile(song(1), "FLAC", "PCM_16"))
    (tmp_path / "list").write_text(text.format(path=tmp_path / "song.flac"))
    with pytest.raises(AudioError, match="unreadable"), opened(tmp_path / "list"):
        pass


@pytest.mark.parametrize(("seconds", "fine"), [(2.9, False), (3.1, True)])
@pytest.mark.parametrize("name", ["WAV, 16 bits", "FLAC, streamed (total 0)", "MP3, VBR without Xing", "WebM, Opus"])
def test_the_longest_that_is_taken_is_measured_not_announced(name: str, seconds: float, fine: bool) -> None:
    file = io.BytesIO(FORMATS[name](wave_of(name)))
    try:
        with opened(file, seconds) as sound:
            assert fine and sound.length > 2.9 * sound.rate
    except AudioError as error:
        assert not fine and error.reason == "too long"


def test_a_lie_about_the_length_is_not_believed() -> None:
    """FLAC whose header announces an hour, a moment, nothing."""
    data = by_soundfile(song(1), "FLAC", "PCM_16")
    for samples in (3600 * RATE, 5, 0):
        bits = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples
        with opened(io.BytesIO(data[:18] + bits.to_bytes(8, "big") + data[26:])) as sound:
            assert (sound.length, sound.is_cut) == (RATE, samples > RATE), samples
    assert without_total(data)[18:26] == bits.to_bytes(8, "big")


QUIET = """
import sys
from pathlib import Path
from data.audio.recordings import AudioError, read
from data.audio.sound_files import metadata
for path in map(Path, sys.argv[1:]):
    for use in (metadata, lambda file: read(path, 30.0)):
        try:
            with path.open("rb") as file:
                use(file)
        except AudioError as error:
            print(error.reason)
"""


def test_the_decoders_say_nothing_themselves(tmp_path: Path) -> None:
    """mpg123 once wrote its warnings on the screen, PyAV what seeking in an empty file raises."""
    bad = bytearray(vbr(song(2)))
    bad[3000:9000:7] = bytes(len(bad[3000:9000:7]))
    files = {"bad.mp3": bytes(bad), "two.mp3": vbr(song(1)) + cbr(song(1)), "cut.m4a": m4a(song(1))[:3000]}
    files |= {"text.mp3": b"this is not sound\n" * 100, "bad.ogg": ogg(song(1))[:5000] + b"OggS" * 500}
    aiff = by_soundfile(song(1), "AIFF", "PCM_16")
    files |= {f"{size}.aiff": aiff[:size] for size in (12, 40, 1000)}
    files |= {f"empty.{kind}": b"" for kind in ("flac", "mp3", "wav", "ogg", "m4a", "wma")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    ran = subprocess.run(
        [sys.executable, "-c", QUIET, *paths], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert ran.stderr == "" and set(ran.stdout.split()) <= {"unreadable", "damaged"}
