"""Sound files of any kind: how long they are, and any stretch of them, to the sample.

libsndfile reads what is uncompressed (WAV, RF64, W64, AIFF, CAF, AU), FFmpeg through PyAV everything else: each is the
faster one there (docs/data.md has the measurement), and libsndfile takes the length of compressed files from headers
that may be wrong or absent (findings/soundfile_mp3_without_xing.sh, findings/soundfile_chained_ogg.sh).

Shapes: C channels, N samples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile

from data.arrays import AnyArray, FloatArray

HIGHEST_RATE = 768_000  # Hz; a header that announces more is damaged
# First bytes of what libsndfile reads; of ALAC in CAF it reads the end too (findings/ffmpeg_caf_with_alac.sh).
PLAIN = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b".snd")
# Containers whose time stamps count samples. Of others (Matroska and WebM, ASF: milliseconds) all is decoded to count.
TIMED = {"mp3", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "aac", "wv", "tta", "ape", "wav", "w64", "aiff", "caf"}
COUNTED_BY_HEADER = {"flac", "mov,mp4,m4a,3gp,3g2,mj2", "wv", "tta"}  # where it announces a number of samples
# Decoders that give the same samples wherever they begin, but for their first WARM_UP seconds. Others, such as AAC with
# its random noise bands, begin at the beginning (findings/ffmpeg_aac_after_a_seek.sh).
EXACT = {"mp3", "mp3float", "flac", "vorbis", "opus", "libopus", "alac", "wavpack", "tta"}
WARM_UP, TAIL = 0.5, 0.5  # seconds decoded before a stretch, and to find the end
GAP = 0.01  # seconds between two frames from which something is missing; less is the rounding of time stamps
STREAM = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the beginning of a FLAC file
FAR = 2**50  # ticks: beyond the end of any file
# A file can make FFmpeg open other files and addresses (playlists); these formats and codecs do not.
OPTIONS = {
    "format_whitelist": "aac,ac3,aiff,amr,ape,asf,au,caf,dsf,eac3,flac,matroska,mov,mp3,mpc,mpc8,mpegts,ogg,tak,tta,"
    "w64,wav,wv",
    "protocol_whitelist": "none",
}
TYPES: dict[str, Any] = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "s64": np.int64, "flt": np.float32}
TYPES["dbl"] = np.float64


class AudioError(Exception):
    """A recording that cannot be used; `reason` is a key of `data.audio.recordings.PROBLEMS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def opened(file: Path | BinaryIO, longest_seconds: float = math.inf) -> Iterator[PlainFile | CodedFile]:
    """Open a path or a binary stream that can seek.

    Raises:
        AudioError: missing, unreadable, zero length; too long: of more than `longest_seconds`.
    """
    if isinstance(file, Path):
        if not file.is_file():
            raise AudioError("missing")
        with _readable(), file.open("rb") as stream, opened(stream, longest_seconds) as sound:
            yield sound
        return
    with _readable(), _sound(file, longest_seconds) as sound:
        if sound.length > longest_seconds * sound.rate:
            raise AudioError("too long")
        yield sound


def metadata(file: BinaryIO) -> dict[str, str]:
    """What the tags of a file, which can seek, say by FFmpeg's names, those of its sound first.

    Raises:
        AudioError: unreadable.
    """
    with _readable(), _container(file) as container:
        stream = container.streams.best("audio")
        if stream is None:
            raise AudioError("unreadable")
        return dict(container.metadata) | dict(stream.metadata)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (MemoryError, AudioError):
        raise
    except (soundfile.SoundFileError, av.FFmpegError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError("unreadable") from error


@contextmanager
def _sound(file: BinaryIO, longest_seconds: float) -> Iterator[PlainFile | CodedFile]:
    file.seek(0)
    head = file.read(8)
    if head[:4] in PLAIN:
        file.seek(0)
        try:
            # By its name if it has one: of a bad file the callbacks into a stream write tracebacks on the screen.
            sound = soundfile.SoundFile(getattr(file, "name", file))
        except soundfile.SoundFileError:
            pass  # FFmpeg may know it
        else:
            # No samples: of a recorder that was killed, or a stream's, whose header counts none. FFmpeg reads on.
            if sound.frames and not sound.subtype.startswith("MPEG"):
                with sound:
                    yield PlainFile(sound, _is_cut(file, head))
                return
            sound.close()
    coded = CodedFile(file, longest_seconds)
    try:
        yield coded
    finally:
        coded.close()


def _is_cut(file: BinaryIO, head: bytes) -> bool:
    """Whether a RIFF or AIFF file is clearly shorter than its header says."""
    orders: dict[bytes, str] = {b"RIFF": "little", b"FORM": "big"}
    announced = int.from_bytes(head[4:], "big" if orders.get(head[:4]) == "big" else "little")
    place = file.tell()
    size = file.seek(0, 2)
    file.seek(place)
    # From nearly 2 GB up the number is what a program writes that cannot know it: of SoX 0x7F000000 or a little more.
    return head[:4] in orders and 1.05 * size < announced < 0x7F000000


class PlainFile:
    """An uncompressed file, read by libsndfile.

    `rate` in Hz, `channels`, `length` in samples; `is_cut`: its header announces clearly more; `has_gaps`:
    something within what was read last cannot be decoded, as far as it shows.
    """

    has_gaps = False

    def __init__(self, file: soundfile.SoundFile, is_cut: bool) -> None:
        self.file, self.is_cut = file, is_cut
        self.rate, self.channels, self.length = file.samplerate, file.channels, file.frames
        if self.rate > HIGHEST_RATE:
            raise AudioError("unreadable")

    def read(self, start: int, count: int) -> FloatArray:
        """Samples from `start` on, (C, N), full scale being 1; fewer than `count` at the end.

        Raises:
            AudioError: damaged.
        """
        count = max(min(count, self.length - start), 0)
        self.file.seek(min(start, self.length))
        found: FloatArray = self.file.read(count, dtype="float32", always_2d=True).T
        if found.shape[1] < 0.95 * count:
            raise AudioError("damaged")
        return found


class CodedFile:
    """A compressed file, read by FFmpeg; attributes and `read` as of `PlainFile`."""

    container: Any = None
    has_gaps = False

    def __init__(self, file: BinaryIO, longest_seconds: float) -> None:
        self.file, self.rate, self.broken, self.kind = file, 0, False, _behind_tags(file)
        self.undecoded = 0  # packets
        self._open()
        first = next(self._frames(), None)
        if first is None:
            raise AudioError("zero length")
        self.rate, self.channels = first.sample_rate, len(first.layout.channels)
        self.dtype = TYPES[first.format.name.removesuffix("p")]
        if not 0 < self.rate <= HIGHEST_RATE:
            raise AudioError("unreadable")
        name = self.container.format.name
        self.ticks = float(self.stream.time_base or 0) * self.rate  # samples a tick
        self.origin = 0 if first.pts is None else first.pts
        self.is_timed = name in TIMED and first.pts is not None and not (name == "ogg" and _is_chained(file))
        self.is_exact = self.is_timed and self.stream.codec_context.name in EXACT
        announced = self._announced(name)
        end = self._end() if self.is_timed else None
        if name == "flac" and end != announced and _is_joined(file):  # their time stamps begin anew
            self.is_timed, self.is_exact, end = False, False, None
        self.length = end or self._count(longest_seconds)
        self.is_cut = self.broken or announced > 1.05 * self.length

    def close(self) -> None:
        """Free what FFmpeg holds; the file stays open."""
        self.container.close()

    def read(self, start: int, count: int) -> FloatArray:
        """As `PlainFile.read`."""
        count, heard = max(min(count, self.length - start), 0), 0
        found = np.zeros((self.channels, count), self.dtype)
        if self.is_exact:
            self._seek(max(start - round(WARM_UP * self.rate), 0))
        else:
            self._open()
        self.undecoded, until, longest = 0, 0, 0
        for at, frame in self._placed():
            first, last = max(at - start, 0), min(at - start + frame.samples, count)
            if at - start >= count:
                break
            if last > first:
                found[:, first:last] = self._samples(frame)[:, first + start - at : last + start - at]
                heard, longest, until = heard + last - first, max(longest, first - until), last
        longest = max(longest, count - until)
        self.has_gaps = longest > GAP * self.rate or (self.undecoded > 0 and not self.is_timed)
        if heard < 0.95 * count:
            raise AudioError("damaged")
        return _as_float(found)

    def _open(self) -> None:
        """Begin anew: a decoder that was used keeps something of it, even after a seek."""
        if self.container is not None:
            self.container.close()
        self.container = _container(self.file, self.kind)
        stream: Any = self.container.streams.best("audio")
        if stream is None or stream.codec_context is None:
            raise AudioError("unreadable")
        self.stream = stream
        self.stream.codec_context.thread_count = 1
        self.stream.codec_context.options = {"err_detect": "crccheck"}

    def _frames(self) -> Iterator[av.AudioFrame]:
        """Frames from here on, but for packets that cannot be decoded."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                frames = self.stream.codec_context.decode(packet) if packet is not None else None
            except MemoryError:
                raise
            except av.InvalidDataError:
                self.undecoded += 1
                continue
            except av.FFmpegError:  # such as a chained Ogg file whose next stream is of another kind
                frames, self.broken = None, True
            if frames is None:
                return
            for frame in frames:
                if self.rate and frame.sample_rate != self.rate:
                    self.broken = True
                    return
                yield frame

    def _placed(self) -> Iterator[tuple[int, av.AudioFrame]]:
        """Frames from here on with their first samples: as they say, or counted from the beginning."""
        count = 0
        for frame in self._frames():
            at = count if frame.pts is None or not self.is_timed else self._place(frame)
            yield at, frame
            count = at + frame.samples

    def _place(self, frame: av.AudioFrame) -> int:
        return round(((frame.pts or 0) - self.origin) * self.ticks)

    def _seek(self, sample: int) -> None:
        """To the last place from which `sample` can be reached."""
        tick = self.origin + math.floor(sample / self.ticks)
        self.container.seek(tick, stream=self.stream, backward=True)

    def _end(self) -> int | None:
        """How many samples there are, from decoding the end; None where it cannot be found."""
        try:
            self.container.seek(FAR, stream=self.stream, backward=True)
            last = next((packet.pts for packet in self.container.demux(self.stream) if packet.pts is not None), None)
            if last is None:
                return None
            self._seek(max(round((last - self.origin) * self.ticks - TAIL * self.rate), 0))
            return max((self._place(one) + one.samples for one in self._frames() if one.pts is not None), default=None)
        except (av.FFmpegError, OSError, ValueError):  # the latter two: from a seek by bytes, to where there is nothing
            return None

    def _count(self, longest_seconds: float) -> int:
        """How many samples there are, from decoding all, or more than are asked for."""
        self._open()
        count = 0
        for at, frame in self._placed():
            count = max(count, at + frame.samples)
            if count > longest_seconds * self.rate:
                break
        return count

    def _samples(self, frame: av.AudioFrame) -> AnyArray:
        """A frame as (C, N)."""
        planes: Any = frame.planes
        if frame.format.is_planar:
            found = np.stack([np.frombuffer(plane, self.dtype, frame.samples) for plane in planes])
        else:
            found = np.frombuffer(planes[0], self.dtype).reshape(-1, len(frame.layout.channels)).T
        if len(found) != self.channels:  # MP3 files one after another, mono and stereo
            found = np.repeat(found.mean(axis=0, keepdims=True, dtype=found.dtype), self.channels, axis=0)
        return found[:, : frame.samples]

    def _announced(self, name: str) -> float:
        """Samples that the header announces; 0 if it announces none, or an estimate."""
        # An MP3 file begins late where a header tells how much its encoder has put in front, and how much there is.
        says = name in COUNTED_BY_HEADER or (name == "mp3" and self.stream.start_time)
        return (self.stream.duration or 0) * self.ticks if says else 0.0


def _container(file: BinaryIO, kind: str | None = None) -> Any:
    """Open with FFmpeg."""
    if not file.seek(0, 2):  # to ask for its size FFmpeg would seek the last byte: PyAV prints the error of that
        raise AudioError("unreadable")
    file.seek(0)
    # "replace": findings/pyav_title_in_gbk.sh
    return av.open(file, format=kind, options=OPTIONS, metadata_errors="replace")


def _as_float(samples: AnyArray) -> FloatArray:
    """Samples with full scale 1."""
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.int16) - 128) << 8
    if samples.dtype.kind == "i":
        scaled: FloatArray = samples * np.float32(2.0 ** (1 - 8 * samples.dtype.itemsize))
        return scaled
    return samples.astype(np.float32, copy=False)


def _behind_tags(file: BinaryIO) -> str | None:
    """The container behind ID3v2 tags; None without any. FFmpeg would look for it in the cover, at length.

    (findings/ffmpeg_mp3_with_a_cover.sh)
    """
    at = file.seek(0)
    head = file.read(10)
    while head[:3] == b"ID3" and len(head) == 10:
        size = sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        at = file.seek(at + size + (20 if head[5] & 16 else 10))
        head = file.read(10)
    if not at or len(head) < 4:
        return None
    if head[:4] == b"fLaC":
        return "flac"
    if head[0] != 0xFF or head[1] < 0xE0:
        return None
    return "mp3" if head[1] & 6 else "aac"


def _is_chained(file: BinaryIO) -> bool:
    """Whether in an Ogg file one stream follows another, or its pages are out of order."""
    file.seek(0)
    data = False
    while head := file.read(27):
        if len(head) < 27 or head[:4] != b"OggS":
            return True
        begins = bool(head[5] & 2)
        if begins and data:
            return True
        data = data or not begins
        file.seek(sum(file.read(head[26])), 1)
    return False


def _is_joined(file: BinaryIO) -> bool:
    """Whether in a FLAC file another one follows."""
    place, found, rest = file.tell(), 0, b""
    file.seek(0)
    while found < 2 and (block := file.read(1 << 20)):
        found += len(STREAM.findall(rest + block))
        rest = block[-7:]
    file.seek(place)  # where FFmpeg takes it to be
    return found > 1
