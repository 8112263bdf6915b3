"""Decode uploads in sandboxed processes: on hostile bytes a decoder may crash, hang or exhaust memory.

A worker is this file run as a program. It can open no files or sockets, cannot write, and has limited memory (on Linux
only); it receives a file's bytes through a pipe, never a path, and answers with plain numbers. A worker that dies,
sends an invalid answer or times out is killed; its song is refused with a reason, and the next one gets a new worker.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Timer, local

import numpy as np
import soundfile

from data.arrays import FloatArray
from data.audio import recordings as audio
from data.audio.recordings import AudioError

# reason → description in messages of the service
REASONS = audio.PROBLEMS | {
    "too large": "needs more memory than a decoder may use",
    "took too long": "not decoded within the time that a song is given",
    "crashed": "the decoder did not survive the file",
}
START_SECONDS = 60.0  # timeout of starting a worker
# environment variables passed to a worker; no others, since they may hold secrets
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG")
RATE_BYTES = 4  # an answer is the sample rate, then float32 samples; or zero, then the reason


class Decoders:
    """Decodes uploads for any number of threads, `processes` at a time.

    Args:
        processes: number of workers; each starts on first use (in a quarter of a second).
        sample_rate: of the returned samples, Hz.
        max_seconds: length of the middle part that is decoded.
        longest_seconds: longer recordings are refused.
        timeout: seconds after which a decoding worker is killed, without the wait for a free worker.
        memory_mb: memory limit of a worker beyond its imports; uploads above a quarter of it are refused.
        min_seconds: shorter recordings are refused.
    """

    def __init__(
        self,
        processes: int = 2,
        sample_rate: int = 16000,
        max_seconds: float = 30.0,
        longest_seconds: float = 3600.0,
        timeout: float = 20.0,
        memory_mb: int = 1024,
        min_seconds: float = 1.0,
    ) -> None:
        self.sample_rate, self.min_seconds, self.memory_mb = sample_rate, min_seconds, memory_mb
        seconds = {"timeout": timeout, "max_seconds": max_seconds, "longest_seconds": longest_seconds}
        self._settings = seconds | {"memory_mb": memory_mb}
        self._workers: list[_Worker] = []
        self._own = local()
        self._pool = ThreadPoolExecutor(processes, "decoder", self._take_worker)  # a thread: a worker

    def decode(self, data: bytes, patience: float | None = None) -> FloatArray:
        """Decode a file's bytes as `data.audio.recordings.decode` does: mono float32 samples of its middle.

        Raises:
            AudioError: with a key of REASONS.
            TimeoutError: no worker was free within `patience` seconds.
            RuntimeError: a worker does not start, or the decoders are closed.
        """
        if 4 * len(data) > self.memory_mb << 20:
            raise AudioError("too large")
        future = self._pool.submit(self._decode, data)
        try:
            return future.result(patience)
        except TimeoutError:
            if future.cancel():
                raise
            return future.result()  # decoding has begun, and has a timeout of its own
        except CancelledError as error:
            raise RuntimeError("the decoders were closed") from error

    def close(self) -> None:
        """Finish the songs being decoded, refuse those waiting, and stop all workers."""
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def _take_worker(self) -> None:
        self._own.worker = _Worker(self._settings)
        self._workers.append(self._own.worker)

    def _decode(self, data: bytes) -> FloatArray:
        wave, rate = self._own.worker.read(data)
        wave = audio.resample(wave, rate, self.sample_rate)
        if not np.isfinite(wave).all():  # samples near the largest float
            raise AudioError("not finite")
        audio.check(wave, self.min_seconds * self.sample_rate)
        return wave


class _Worker:
    """A process that decodes sound files; used by one thread at a time."""

    def __init__(self, settings: dict[str, float]) -> None:
        self.settings = settings
        self.longest_answer = RATE_BYTES + 4 * math.ceil(settings["max_seconds"] * audio.HIGHEST_RATE)
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection

    def read(self, data: bytes) -> tuple[FloatArray, int]:
        """Decode a file to samples at its own rate; returns them with the rate.

        Raises:
            AudioError, RuntimeError: as `Decoders.decode`.
        """
        if self.process is None or self.process.poll() is not None:  # killed while idle: no fault of this song
            self.stop()
            self.process = self.start()
        process, late, answered = self.process, Event(), False

        def give_up() -> None:
            late.set()
            process.kill()  # ends all waits for the pipe, on both sides

        watchdog = Timer(self.settings["timeout"], give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            self.connection.send_bytes(data)
            wave, rate, reason = _parsed(self.connection.recv_bytes(self.longest_answer))
            answered = True
        except (EOFError, OSError, ValueError) as error:
            raise AudioError("took too long" if late.is_set() else "crashed") from error
        finally:
            watchdog.cancel()
            watchdog.join()
            if late.is_set() or not answered:
                self.stop()
        if reason:
            raise AudioError(reason)
        return wave, rate

    def start(self) -> subprocess.Popen[bytes]:
        """Start a process and wait until it is ready; it inherits nothing but its end of the pipe."""
        self.connection, theirs = Pipe()
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        with theirs:
            process = self.process = subprocess.Popen(
                [sys.executable, "-m", "serving.decoding", str(theirs.fileno()), json.dumps(self.settings)],
                cwd=Path(__file__).parents[1],
                env=kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches the service only, which stops its workers
            )
        with suppress(EOFError, OSError):
            if self.connection.poll(START_SECONDS):
                self.connection.recv_bytes(0)
                return process
        self.stop()
        raise RuntimeError("a decoder process does not start; what it said is among the messages above")

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.connection.close()
            self.process = None


def to_flac(wave: FloatArray, sample_rate: int) -> bytes:
    """Encode mono samples in [-1, 1] as 16-bit FLAC."""
    file = io.BytesIO()
    soundfile.write(file, audio.as_int16(wave), sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def from_flac(data: bytes, sample_rate: int) -> FloatArray:
    """Decode a file written by `to_flac`, exact to half a 16-bit step; resampled if it has another rate.

    Raises:
        AudioError: the file is damaged.
    """
    heard = audio.read(io.BytesIO(data), max_seconds=1e9)
    if {"cut_short", "gaps"} & {*heard.changes}:
        raise AudioError("damaged")
    return audio.resample(heard.wave, heard.rate, sample_rate)


def _parsed(answer: bytes) -> tuple[FloatArray, int, str]:
    # a compromised worker may send anything
    rate = int.from_bytes(answer[:RATE_BYTES], "little")
    reason = "" if rate else answer[RATE_BYTES:].decode("ascii")
    if rate > audio.HIGHEST_RATE or (not rate and reason not in REASONS):
        raise ValueError("not an answer")
    wave = np.frombuffer(b"" if reason else answer[RATE_BYTES:], np.float32).copy()
    return wave, rate, reason


# ------------------------------------------------------------------------------------------------- within a worker


def _serve(connection: Connection, settings: dict[str, float]) -> None:
    for kind in ("WAV", "FLAC"):  # load everything that is imported on first use, of both libraries
        file = io.BytesIO()
        soundfile.write(file, np.zeros(64), 8000, format=kind)
        _answer(file.getvalue(), settings)
    os.dup2(1, 2)  # discard the decoders' messages about files
    _confine(int(settings["memory_mb"]) << 20)
    connection.send_bytes(b"")
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return  # the service has ended
        # a CPU limit ends a hanging worker even if the service was killed
        seconds = math.ceil(time.process_time() + settings["timeout"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        connection.send_bytes(_answer(data, settings))


def _confine(memory: int) -> None:
    if sys.platform == "linux":
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))  # the pipe stays open


def _answer(data: bytes, settings: dict[str, float]) -> bytes:
    longest = settings["longest_seconds"]
    try:
        heard = audio.read(io.BytesIO(data), settings["max_seconds"], longest)
        return heard.rate.to_bytes(RATE_BYTES, "little") + heard.wave.tobytes()
    except AudioError as error:
        return bytes(RATE_BYTES) + error.reason.encode()
    except MemoryError:
        return bytes(RATE_BYTES) + b"too large"


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), json.loads(sys.argv[2]))
