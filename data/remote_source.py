"""A dataset folder in an object store: its tables come to this machine's disk whole, its recordings one by one.

A recording is a file only while it is decoded, so that the disk holds as many as there are workers. It is known by its
address, its size and the time of its change, which a listing of the folder tells: one request for a thousand objects.
S3 tells that time in whole seconds, so what has just been written may be written again and look the same: it is fetched
again by the next command. Of its tags (`format=folder`) only those parts are fetched where they are.
"""

from __future__ import annotations

import io
import posixpath
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from artifacts import remote
from configs.errors import UserError
from data.audio.sound_files import AudioError
from data.contract.columns import COLUMNS
from data.contract.dataset import hidden
from data.music_folder import LYRICS, SUFFIXES

PART_BYTES = 2**18  # fetched at a time of a recording whose tags are read
READERS = 16  # threads that read tags
JUST_WRITTEN = 60 * 10**9  # nanoseconds: the clocks of the store and of this machine may differ by some
State = tuple[int, int]  # size in bytes, and time of change in nanoseconds


@dataclass(frozen=True)
class RemoteSource:
    """A dataset folder: its address, what lies in it, by name, and an empty folder on this machine's disk."""

    uri: str
    objects: dict[str, State]
    aside: Path

    @classmethod
    def listed(cls, uri: str, aside: Path) -> RemoteSource:
        """List the folder.

        Raises:
            UserError: it cannot be read.
        """
        now = time.time_ns()  # no later state is the same
        states = {
            name: (size, changed if changed < now - JUST_WRITTEN else now)
            for name, (size, changed) in remote.listed(uri).items()
        }
        return cls(uri, states, aside)

    @property
    def folder(self) -> Path:
        """Where its tables are on disk."""
        return self.aside / "dataset"

    def tables(self, music: bool = False) -> Path:
        """Bring the tables to disk; of `music` also lyrics, and an empty file in the place of each recording.

        Raises:
            UserError: one cannot be read, or has a name that no file can have.
        """
        named, in_parts = {f"{table}.parquet" for table in COLUMNS}, "plays.parquet" not in self.objects
        self.folder.mkdir()
        for name in self.objects:
            path = PurePosixPath(name)
            if hidden(path.parts):
                continue
            kind = path.suffix.lower()
            if name in named or (in_parts and path.parts[0] == "plays" and kind == ".parquet"):
                self._bring(name)
            elif music and kind in (*LYRICS, *SUFFIXES):
                self._bring(name, whole=kind in LYRICS)
        return self.folder

    def _bring(self, name: str, whole: bool = True) -> None:
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)  # "a//b" is "a/b" here
        except OSError as error:
            raise UserError(f"{self.uri}: {name!r} can be no file on disk ({error.strerror}): rename it") from None
        try:
            if whole:
                fetch(self.uri, name, path)
        except FileNotFoundError:
            raise UserError(f"{self.uri}: {name} is gone: is the folder being written? Try again") from None

    @contextmanager
    def opened(self, path: Path) -> Iterator[BinaryIO]:
        """Open the recording in whose place an empty file is, to read parts of it.

        Raises:
            FileNotFoundError: it is gone.
            UserError: it cannot be read.
        """
        name = path.relative_to(self.folder).as_posix()
        system, root = client(self.uri)
        try:
            source = system.open_input_file(f"{root}/{name}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise remote.unreadable(self.uri, error) from None
        with source:
            parts = Parts(source, name)
            try:
                yield io.BufferedReader(parts, PART_BYTES)
            finally:
                if parts.error is not None:
                    raise remote.unreadable(self.uri, parts.error)

    def recording(self, audio_path: str) -> str:
        """The address of a recording; of one outside of the folder, an address where nothing is."""
        return f"{base(self.uri)}/{posixpath.normpath(audio_path)}"

    def states(self) -> dict[str, State]:
        """Size and time of change of each object, by its address."""
        return {f"{base(self.uri)}/{name}": state for name, state in self.objects.items()}


def fetch(uri: str, name: str, path: Path) -> None:
    """Bring one file of a folder to disk; errors as `artifacts.remote.download`."""
    system, root = client(uri)
    remote.download(uri, system, f"{root}/{name}", path)


client = cache(remote.opened)  # once a process: it has its own connections


class Parts(io.RawIOBase):
    """A file of an object store, of which is fetched what is read.

    `error` is what failed: whoever reads tags takes it for a broken file, and swallows it.
    """

    error: OSError | None = None

    def __init__(self, source: Any, name: str) -> None:
        self.source, self.name = source, name  # FFmpeg and mutagen may tell the format by the latter

    def readable(self) -> bool:
        """As of any file."""
        return True

    def seekable(self) -> bool:
        """As of any file."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        try:
            data = self.source.read(len(buffer))
        except OSError as error:
            self.error = error
            raise
        buffer[: len(data)] = data
        return len(data)

    def seek(self, to: int, whence: int = 0) -> int:
        """As of any file."""
        return int(self.source.seek(to, whence))

    def tell(self) -> int:
        """As of any file."""
        return int(self.source.tell())


def base(uri: str) -> str:
    """An address without its options."""
    return uri.partition("?")[0].rstrip("/")


@contextmanager
def brought(file: Path | str, uri: str, aside: Path) -> Iterator[Path]:
    """A recording as a file on disk until the block ends: a path as it is, an address within the folder `uri` fetched.

    Raises:
        AudioError: missing.
        UserError: it cannot be read.
    """
    if isinstance(file, Path):
        yield file
        return
    name = file.removeprefix(f"{base(uri)}/")
    path = aside / f"{uuid.uuid4().hex[:12]}{PurePosixPath(name).suffix}"  # by which FFmpeg may tell the format
    try:
        try:
            fetch(uri, name, path)
        except FileNotFoundError:
            raise AudioError("missing") from None
        yield path
    finally:
        path.unlink(missing_ok=True)
