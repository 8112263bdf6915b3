"""`prepare` on each public data set, in small: to the end, and the same in parts as all at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.public_sets import WRITERS, PublicSetsConfig, log_of
from configs.errors import UserError


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`public(format)`: a small data set of this form."""
    config = PublicSetsConfig(plays=3000, users=80, songs=150, dim=4)

    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        WRITERS[name](folder, log_of(config), config)
        return folder

    return run


@pytest.mark.parametrize("name", WRITERS)
def test_in_parts_is_as_all_at_once(
    name: str,
    public: Callable[[str], Path],
    prepare: Callable[..., Path],
    same_catalogue: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where text is read in blocks that end within lines."""
    source = public(name)
    whole = prepare(source, tmp_path / "whole", f"format={name}")
    monkeypatch.setattr("data.published.files.BLOCK", 10_007)
    manifest = same_catalogue(whole, prepare(source, tmp_path / "parts", f"format={name}", "memory_gb=1e-5"))
    counts = manifest["counts"]
    assert counts["songs"] > 140 and counts["training_plays"] > 100 and manifest["pairs"]["kept"] > 0
    assert not list(tmp_path.glob(".*")), "the tables that were read into are gone"


def test_the_manifest_tells_what_was_left_out(
    public: Callable[[str], Path], prepare: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = public("listenbrainz")
    with next(iter(sorted(source.rglob("*.listens")))).open("a") as file:
        file.write("{broken\n")
    manifest = json.loads((prepare(source, tmp_path / "out", "format=listenbrainz") / "manifest.json").read_text())
    assert manifest["rejected"]["lines_without_listen"]["count"] == 1
    assert "lines that are no listen in JSON" in capsys.readouterr().out
    assert any("MusicBrainz recordings" in note for note in manifest["notes"])


def test_a_log_without_a_play_is_one_line(prepare: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\nu\n")
    with pytest.raises(UserError, match=r"no play can be read \(1 lines of x\.inter with another number"):
        prepare(tmp_path, tmp_path / "out", "format=recbole")
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\n")
    with pytest.raises(UserError, match=r"no play can be read \(the files have no row\)"):
        prepare(tmp_path, tmp_path / "out", "format=recbole")
    with pytest.raises(UserError, match=r"not found: .* is no folder"):
        prepare(tmp_path / "absent", tmp_path / "out", "format=mpd")
