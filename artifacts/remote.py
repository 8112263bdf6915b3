"""Folders in an object store (s3://, gs://, abfss://): listed, files of them read or brought to this machine's disk;
and those that a command wrote (their manifest has the fingerprints of their `files`) brought whole and checked.

Arrow's own file systems read them: they come with pyarrow. Credentials, region and endpoint are those of the
environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …) or of the machine.
"""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from artifacts.fingerprints import of_file, of_values
from artifacts.folders import MANIFEST, writing
from configs.errors import UserError

FILES = "files"  # of a manifest: fingerprint of each file by its path in the folder
BLOCK = 2**23  # bytes
IN_ADDRESSES = "%/:?&=+@,;~!$'()*"  # stand for themselves there; others (a space, 雨, #) may be given as they are


def is_remote(folder: str) -> bool:
    """Whether a folder is one of an object store."""
    return "://" in folder


def of_files(folder: Path) -> dict[str, str]:
    """Fingerprints of all files of a folder but its manifest, by their path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): of_file(path) for path in paths if path != folder / MANIFEST}


def opened(uri: str) -> tuple[Any, str]:
    """The file system of an address, and the folder's path in it.

    Raises:
        UserError: it is none.
    """
    from pyarrow import fs  # half a second, for those who need it

    try:
        system, root = fs.FileSystem.from_uri(quote(uri, safe=IN_ADDRESSES))
        return system, root.rstrip("/")
    except (OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{uri}: no address of an object store ({one_line(error)})") from None


def listed(uri: str) -> dict[str, tuple[int, int]]:
    """Size in bytes, and time of change in nanoseconds, of each file of a folder, by its path in it, in their order.

    Raises:
        UserError: it cannot be read, or nothing is there.
    """
    from pyarrow import fs

    system, root = opened(uri)
    try:
        found = system.get_file_info(fs.FileSelector(root, recursive=True))
    except FileNotFoundError:
        raise UserError(f"{uri}: nothing is there") from None
    except OSError as error:
        raise unreadable(uri, error) from None
    files = sorted((one for one in found if one.type == fs.FileType.File), key=lambda one: one.path)
    return {one.path[len(root) :].lstrip("/"): (one.size, one.mtime_ns) for one in files}


def content(uri: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it cannot be read.
    """
    system, path = opened(uri)
    try:
        with system.open_input_stream(path) as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(uri, error) from None


def download(uri: str, system: Any, source: str, path: Path) -> None:
    """Bring a file of the folder `uri` to disk.

    Raises:
        FileNotFoundError: it is not there.
        UserError: it cannot be read.
    """
    try:
        with system.open_input_stream(source) as file, path.open("wb") as copy:
            while block := file.read(BLOCK):
                copy.write(block)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unreadable(uri, error) from None


def unreadable(uri: str, error: OSError) -> UserError:
    """What to say of an address that cannot be read."""
    what = "cannot be read: check its address, the credentials and the disk"
    return UserError(f"{uri} {what} ({one_line(error)})")


class RemoteFolder:
    """A folder of an object store and its copy on disk.

    Args:
        uri: of the folder, as the operator gives it.
        kind: what it must be.
        cache: folder of copies; this one's is named by the address.
    """

    def __init__(self, uri: str, kind: str, cache: Path) -> None:
        self.uri, self.kind = uri.rstrip("/"), kind
        name = PurePosixPath(self.uri.partition("?")[0]).name
        self.copy = cache.expanduser() / f"{name}-{of_values(self.uri)}"

    def fetch(self) -> bool:
        """Make the copy what is there now, in one rename; files that have not changed are not sent again.

        Returns whether the copy is another one than before.

        Raises:
            UserError: it cannot be read, is no whole folder of this kind, or is being written.
        """
        system, root = opened(self.uri)
        manifest = self._manifest(system, root)
        try:
            before = json.loads((self.copy / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            before = {}
        if before == manifest:
            return False
        written = {name: value for name, value in manifest.items() if name != "kind"}
        with writing(self.copy, self.kind, written) as aside:
            for name, fingerprint in manifest[FILES].items():
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                old = self.copy / name
                if old.is_file() and of_file(old) == fingerprint:
                    shutil.copy2(old, path)
                else:
                    self._download(system, f"{root}/{name}", path)
                if of_file(path) != fingerprint:
                    raise UserError(
                        f"{self.uri}/{name} is not the file of its manifest: is the folder being written? Upload "
                        f"{MANIFEST} last, and try again"
                    )
        return True

    def follow(self, seconds: float, ended: threading.Event, failed: Any) -> None:
        """Fetch at intervals until the event; `failed` is told of errors, once each."""
        told = ""
        while not ended.wait(seconds):
            try:
                self.fetch()
                told = ""
            except (UserError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    failed(told)

    def _manifest(self, system: Any, root: str) -> dict[str, Any]:
        """The folder's manifest, its kind and the names of its files checked."""
        try:
            with system.open_input_stream(f"{root}/{MANIFEST}") as file:
                manifest: Any = json.loads(file.read())
        except FileNotFoundError:
            raise UserError(f"{self.uri} has no {MANIFEST}: is it the address of a {self.kind} folder?") from None
        except OSError as error:
            raise unreadable(self.uri, error) from None
        except ValueError as error:
            raise UserError(f"{self.uri}/{MANIFEST} is damaged ({one_line(error)})") from None
        if not isinstance(manifest, dict) or manifest.get("kind") != self.kind:
            raise UserError(f"{self.uri} is no {self.kind} folder")
        files = manifest.get(FILES)
        if not isinstance(files, dict) or not all(inside(name) for name in files):
            raise UserError(f"{self.uri}/{MANIFEST} names no files: make the folder again with this version")
        return manifest

    def _download(self, system: Any, source: str, path: Path) -> None:
        try:
            download(self.uri, system, source, path)
        except FileNotFoundError:
            raise UserError(f"{self.uri}: {source} is missing: upload the folder again") from None


def inside(name: Any) -> bool:
    """Whether a name is that of a file below a folder."""
    parts = PurePosixPath(str(name)).parts
    return bool(parts) and isinstance(name, str) and not name.startswith("/") and ".." not in parts and "\\" not in name


def one_line(error: Exception) -> str:
    """An error of the object store's client, without its paragraphs."""
    return " ".join(str(error).split())[:300]
