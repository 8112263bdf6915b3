"""A dataset folder in an object store: its tables come to this machine's disk whole, its recordings one by one.

A recording is a file only while it is decoded, so that the disk holds as many as there are workers. It is known by its
address, its size and the time of its change, which a listing of the folder tells: one request for a thousand objects.
"""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from artifacts import remote
from configs.errors import UserError
from data.audio.sound_files import AudioError
from data.contract.columns import COLUMNS
from data.contract.dataset import hidden

State = tuple[int, int]  # size in bytes, and time of change in nanoseconds


@dataclass(frozen=True)
class RemoteSource:
    """A dataset folder: its address, what lies in it, by name, and an empty folder on this machine's disk."""

    uri: str
    objects: dict[str, State]
    aside: Path

    @classmethod
    def opened(cls, uri: str, aside: Path) -> RemoteSource:
        """List the folder.

        Raises:
            UserError: it cannot be read, or is no dataset folder.
        """
        found = cls(uri, remote.listed(uri), aside)
        if "songs.parquet" not in found.objects:
            raise UserError(f"{uri} is not a dataset folder: it has no songs.parquet (see docs/data.md)")
        return found

    def tables(self) -> Path:
        """Bring the tables to a folder on disk.

        Raises:
            UserError: one cannot be read.
        """
        folder, named = self.aside / "dataset", {f"{table}.parquet" for table in COLUMNS}
        in_parts = "plays.parquet" not in self.objects
        for name in self.objects:
            parts = PurePosixPath(name).parts
            is_part = in_parts and parts[0] == "plays" and name.lower().endswith(".parquet") and not hidden(parts)
            if name in named or is_part:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    fetch(self.uri, name, folder / name)
                except FileNotFoundError:
                    raise UserError(f"{self.uri}: {name} is gone: is the folder being written? Try again") from None
        return folder

    def recording(self, audio_path: str) -> str:
        """The address of a recording; of one outside of the folder, an address where nothing is."""
        return f"{base(self.uri)}/{posixpath.normpath(audio_path)}"

    def states(self) -> dict[str, State]:
        """Size and time of change of each object, by its address."""
        return {f"{base(self.uri)}/{name}": state for name, state in self.objects.items()}


def fetch(uri: str, name: str, path: Path) -> None:
    """Bring one file of a folder to disk; errors as `artifacts.remote.download`."""
    system, root = opened(uri)
    remote.download(uri, system, f"{root}/{name}", path)


opened = cache(remote.opened)  # once a process: a client has its own connections


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
