"""A folder that exists is whole: whatever interrupts its writing, and whatever was there before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from artifacts.folders import (
    MANIFEST,
    check_replaceable,
    read_manifest,
    read_whole,
    write_manifest,
    write_text,
    writing,
)
from configs.errors import UserError

ROOT = Path(__file__).parents[2]


def make(out: Path, text: str = "one", kind: str = "catalogue") -> None:
    with writing(out, kind, {}) as folder:
        (folder / "data.txt").write_text(text)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_appears_whole_with_what_the_block_added_to_the_manifest(tmp_path: Path) -> None:
    manifest: dict[str, Any] = {"source": "x"}
    out = tmp_path / "deep" / "out"
    with writing(out, "catalogue", manifest) as folder:
        assert not out.exists() and folder.parent == out.parent, "same file system, so that the rename is atomic"
        (folder / "data.txt").write_text("one")
        manifest |= {"counts": 3, "name": "Grüße 歌"}
    assert json.loads((out / MANIFEST).read_text(encoding="utf-8")) == {"kind": "catalogue", **manifest}
    assert read_manifest(out, "catalogue", "make it") == {"kind": "catalogue", **manifest}
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, UserError, None])
def test_exception_leaves_the_old_folder_and_nothing_else(tmp_path: Path, error: type[BaseException] | None) -> None:
    make(tmp_path / "out", "old")
    (tmp_path / "out" / "stale.txt").write_text("of the old run")
    before = everything(tmp_path)
    with pytest.raises(error or TypeError), writing(tmp_path / "out", "catalogue", {"bad": object()}) as folder:
        (folder / "data.txt").write_text("half")
        with pytest.raises(UserError, match="another command is writing"):
            make(tmp_path / "out")
        if error:
            raise error  # else the manifest cannot be written
    assert everything(tmp_path) == before and os.listdir(tmp_path) == ["out"]
    make(tmp_path / "out", "new")
    assert set(everything(tmp_path)) == {"out/data.txt", f"out/{MANIFEST}"}, "nothing of the old folder"
    assert (tmp_path / "out" / "data.txt").read_text() == "new"


def fill_foreign(out: Path, what: str) -> None:
    if what == "file":
        out.write_text("precious")
        return
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    manifests = {"broken": "{", "list": "[1]", "other kind": '{"kind": "index"}', "binary": "\udcff"}
    if what in manifests:
        (out / MANIFEST).write_bytes(manifests[what].encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("what", ["file", "folder", "broken", "list", "other kind", "binary"])
def test_foreign_things_are_never_replaced(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    fill_foreign(out, what)
    before = everything(tmp_path)
    entered = False
    with pytest.raises(UserError, match="not an earlier catalogue folder"), writing(out, "catalogue", {}):
        entered = True
    assert not entered, "no hour of work before the refusal"
    assert everything(tmp_path) == before and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("what", ["absent", "file", "broken", "list", "binary", "folder", "other kind"])
def test_reading_a_wrong_folder_is_one_line_that_names_the_command(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what != "absent":
        fill_foreign(out, what)
    with pytest.raises(UserError) as caught:
        read_manifest(out, "catalogue", "python -m pipeline.prepare")
    message = str(caught.value)
    assert "python -m pipeline.prepare" in message and str(out) in message and "\n" not in message
    assert ("is a index folder, not a catalogue folder" in message) == (what == "other kind")
    assert ("folder not found" in message) == (what in ("absent", "file"))


def test_an_empty_folder_or_a_half_written_manifest_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed inside its very first write must not lock its own folder."""

    check_replaceable(tmp_path, "i2i run")
    monkeypatch.setattr(os, "replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_manifest(tmp_path, "i2i run", {})
    assert os.listdir(tmp_path)
    check_replaceable(tmp_path, "i2i run")


def test_write_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    code = "from artifacts.folders import *; write_manifest(Path('.'), 'k', {'title': chr(0x6B4C)})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert json.loads((tmp_path / MANIFEST).read_bytes().decode("utf-8"))["title"] == "歌"
    assert os.listdir(tmp_path) == [MANIFEST]


def test_write_text_by_two_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ranks write the same small files; neither may move the other's half away."""
    real, other = os.replace, []

    def interleaved(source: Path, target: Path) -> None:
        if not other:
            other.append(True)
            with monkeypatch.context() as context:
                context.setattr(os, "getpid", lambda: 4_000_000)
                write_text(tmp_path / "a.txt", "same")
        real(source, target)

    monkeypatch.setattr(os, "replace", interleaved)
    write_text(tmp_path / "a.txt", "same")
    assert everything(tmp_path) == {"a.txt": b"same"}


WRITER = """
import os, sys, time
from pathlib import Path
from artifacts.folders import writing
with writing(sys.argv[1], "catalogue", {}) as folder:
    (folder / "data.txt").write_text("new")
    if not os.fork():
        print("half", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("earlier", [False, True])
def test_kill_9_in_the_middle_then_run_again(tmp_path: Path, earlier: bool) -> None:
    """A worker process that outlives the killed command does not keep the next one out."""
    out = tmp_path / "out"
    if earlier:
        make(out, "old")
    argv = [sys.executable, "-c", WRITER, str(out)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"half\n"
            process.kill()
            process.wait()
            assert out.exists() == earlier and (not earlier or (out / "data.txt").read_text() == "old")
            make(out, "new")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert (out / "data.txt").read_text() == "new" and os.listdir(tmp_path) == ["out"], "no leftovers of the killed run"


def test_a_reader_never_mixes_two_versions(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write(text: str) -> None:
        with writing(out, "catalogue", {"of": text}) as folder:
            for name in "ab":
                (folder / name).write_text(text)

    def read() -> tuple[str, ...]:
        return read_manifest(out, "catalogue", "")["of"], (out / "a").read_text(), (out / "b").read_text()

    write("0")
    writer = threading.Thread(target=lambda: [write(str(n)) for n in range(1, 300)])
    writer.start()
    versions = set()
    while writer.is_alive():
        found = read_whole(out, read)
        assert len(set(found)) == 1
        versions.add(found)
    assert len(versions) > 1, "some were read while others were written"
    (out / "b").unlink()
    with pytest.raises(FileNotFoundError):
        read_whole(out, read)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    make(tmp_path / "link", "one")
    make(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "data.txt").read_text() == "two"


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    """The old version is there under another name; the next command puts it back before it begins."""
    make(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "out", "catalogue", {}):
        raise ZeroDivisionError
    assert (tmp_path / "out" / "data.txt").read_text() == "old"
