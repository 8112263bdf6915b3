"""How every command reads and writes its folder.

A FirstPlay folder carries a `manifest.json` whose `kind` says what it is. A command writes aside and renames at
the end, so a folder that exists is whole; and it checks the kind of what it is given, so that a wrong folder is
one clear line instead of a stack trace.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import UserError, no_folder

MANIFEST = "manifest.json"
PART = ".part"  # ending of what is not whole yet
LEFT_SECONDS = 24 * 3600  # after which nobody is still writing it
T = TypeVar("T")


@contextmanager
def writing(out: str | Path, kind: str, manifest: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder beside `out`; on success add `manifest.json` and move it to `out` in one rename.

    `manifest` may be filled by the caller until the block ends. A folder of the same kind already at `out` is
    replaced; anything else there is left alone.

    Raises:
        UserError: `out` exists and is not a FirstPlay folder of this `kind`.
    """
    out = Path(out).resolve()  # what a link stands for
    old = out.with_name(f".{out.name}.old")
    with aside_of(out, PART) as aside:
        if old.exists() and not out.exists():
            old.rename(out)  # killed between the two renames below
        check_replaceable(out, kind)
        yield aside
        write_manifest(aside, kind, manifest)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def read_whole(folder: Path, read: Callable[[], T]) -> T:
    """What `read` makes of the files of a folder, all of one version: read again if it was replaced meanwhile."""
    whole = folder.resolve()
    old = whole.with_name(f".{whole.name}.old")
    for tries_left in range(50, -1, -1):
        before = version(folder)
        try:
            found = read()
            if version(folder) == before:
                return found
        except (UserError, OSError):
            between_renames = before is None and old.exists()
            if not tries_left or (version(folder) == before and not between_renames):
                raise
        time.sleep(0.01)
    raise UserError(f"{folder} is replaced again and again while it is read: wait for the command that writes it")


def version(folder: Path) -> tuple[int, int] | None:
    """Tells one folder from another of the same name; None where there is none."""
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def scratch(out: str | Path) -> Iterator[Path]:
    """An empty folder beside `out` for what is not needed after the block."""
    with aside_of(Path(out).resolve(), f".scratch{PART}") as aside:
        yield aside


@contextmanager
def aside_of(out: Path, ending: str) -> Iterator[Path]:
    """An empty hidden folder beside `out`, removed at the end unless it was renamed; held by one process at a time.

    Raises:
        UserError: another process is writing `out`.
    """
    aside = out.with_name(f".{out.name}{ending}")
    aside.mkdir(parents=True, exist_ok=True)
    held = os.open(aside, os.O_RDONLY)
    _held.add(held)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another command is writing {out} just now: wait for it, or choose another out=") from None
        for left in aside.iterdir():  # by a killed run
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield aside
        finally:
            if aside.exists() and os.path.samestat(os.stat(aside), os.fstat(held)):
                shutil.rmtree(aside, ignore_errors=True)
    finally:
        _held.discard(held)
        os.close(held)


_held: set[int] = set()  # locked folders of `aside_of`


def _let_go() -> None:
    """A worker process that outlives its killed parent for some seconds must not hold the parent's lock."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def check_replaceable(out: Path, kind: str) -> None:
    """Raise UserError unless `out` is free, empty, or an earlier output of the same kind."""
    if not out.exists() or (out.is_dir() and all(path.suffix == PART for path in out.iterdir())):
        return  # free, or a run was killed inside its very first write
    if out.is_dir() and kind_of(out) == kind:
        return
    raise UserError(f"{out} exists and is not an earlier {kind} folder: choose another out= or remove it")


def write_manifest(folder: Path, kind: str, manifest: dict[str, Any]) -> None:
    """Write `manifest.json` (with its `kind`) into `folder`, atomically."""
    write_json(folder / MANIFEST, {"kind": kind, **manifest})


def read_manifest(folder: str | Path, kind: str, made_by: str) -> dict[str, Any]:
    """Read the manifest of a folder and check its kind.

    Args:
        folder: the folder to read.
        kind: what it must be.
        made_by: the command that makes such a folder, for the error message.

    Raises:
        UserError: missing folder, no or broken manifest, or another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise no_folder(folder, kind, made_by)
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a {kind} folder: it has no {MANIFEST} (make one with: {made_by})") from None
    except ValueError as error:  # neither JSON nor UTF-8
        raise UserError(f"{folder / MANIFEST} is damaged ({error}); make the folder again with: {made_by}") from None
    if not isinstance(manifest, dict):
        raise UserError(f"{folder / MANIFEST} is damaged (no JSON object); make the folder again with: {made_by}")
    if manifest.get("kind") != kind:
        raise UserError(f"{folder} is a {manifest.get('kind')} folder, not a {kind} folder (made by: {made_by})")
    return manifest


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) aside, then rename, so that a reader never sees half of it; any rank may do so."""
    aside = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


@contextmanager
def kept_whole(path: Path, what: str) -> Iterator[Path]:
    """Yield a file to write beside `path`, which takes its place when it is whole.

    Raises:
        UserError: it cannot be written.
    """
    aside = path.with_suffix(f".{uuid.uuid4().hex[:8]}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left(path.parent)
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError as error:
        raise UserError(f"{path.parent}: the {what} cannot be kept here ({error.strerror})") from None
    finally:
        with suppress(OSError):  # renamed, or never made
            aside.unlink()


def kind_of(folder: Path) -> str | None:
    """What a folder says it is; None where it does not say so."""
    try:
        kind = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None


def remove_left(folder: Path) -> None:
    """Remove what a kill left half-written a day ago or more."""
    for path in folder.glob(f"*{PART}"):
        with suppress(FileNotFoundError):  # another command may be finishing it
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()
