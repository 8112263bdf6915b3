"""The index folder: kinds, tuning, mapped reading, and an update against the index that would be built anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import UserError
from data.catalogue import Catalogue
from inference.song_index import open_index
from tests.commands import run as command


def make(run: Path, out: Path, *options: str) -> dict[str, Any]:
    command("index", f"run={run}", f"out={out}", *options)
    return json.loads((out / "manifest.json").read_text("utf-8"))


def test_an_update_is_the_index_that_would_be_built_anew(
    i2i_run: Path, later: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("Flat", "IVF4,Flat"):
        out = tmp_path / "index"
        shutil.rmtree(out, ignore_errors=True)
        make(i2i_run, out, f"index={kind}")
        opened = open_index(out)
        before = opened.similar(np.asarray(opened.vectors[:4]), 6)
        manifest = make(i2i_run, out, f"data={later}", "update=true")
        assert (manifest["added"], manifest["replaced"], manifest["removed"]) == (3, 1, 2)
        assert (manifest["version"], manifest["learned_from"], manifest["index"]) == (2, 48, kind)
        assert "version 2: added 3, replaced 1, removed 2; learned from 48 songs" in capsys.readouterr().out
        make(i2i_run, tmp_path / "anew", f"data={later}", f"index={kind}")
        catalogue = Catalogue.read(later)
        found, expected = (open_index(folder, catalogue) for folder in (out, tmp_path / "anew"))
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
        queries = np.asarray(expected.vectors)
        if kind != "Flat":  # the lists differ, what is in them must not
            found.index.nprobe = expected.index.nprobe = 4
        scores, songs = found.similar(queries, 10)
        np.testing.assert_allclose(scores, expected.similar(queries, 10)[0], rtol=1e-5)
        np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, queries[songs]), rtol=1e-4, atol=1e-5)
        again = opened.similar(np.asarray(opened.vectors[:4]), 6)  # whoever had it open goes on with what they opened
        np.testing.assert_array_equal(before[1], again[1])


def test_nothing_has_changed(i2i_run: Path, tmp_path: Path) -> None:
    make(i2i_run, tmp_path / "index")
    with pytest.raises(UserError, match=r"is Flat: to make it IVF4,Flat build it anew"):
        make(i2i_run, tmp_path / "index", "update=true", "index=IVF4,Flat")
    manifest = make(i2i_run, tmp_path / "index", "update=true")
    assert (manifest["added"], manifest["replaced"], manifest["removed"], manifest["version"]) == (0, 0, 0, 2)


def test_a_removed_song_that_comes_back_is_a_new_entry(i2i_run: Path, later: Path, tmp_path: Path) -> None:
    first = make(i2i_run, tmp_path / "index")
    there = open_index(tmp_path / "index")
    scores, _ = there.similar(np.asarray(there.vectors), 5)
    make(i2i_run, tmp_path / "index", f"data={later}", "update=true")
    manifest = make(i2i_run, tmp_path / "index", "update=true")
    assert (manifest["added"], manifest["replaced"], manifest["removed"]) == (2, 1, 3)
    assert manifest["entries"] == first["entries"] + 5 and manifest["songs"] == first["songs"]
    again = open_index(tmp_path / "index").similar(np.asarray(there.vectors), 5)
    np.testing.assert_allclose(again[0], scores, rtol=1e-5)


def test_an_update_must_be_possible(i2i_run: Path, train_i2i: Callable[..., Path], later: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    with pytest.raises(UserError, match="folder not found"):
        make(i2i_run, out, "update=true")
    make(i2i_run, out, "index=HNSW8")
    state = (out / "manifest.json").read_bytes(), (out / "index.faiss").read_bytes()
    with pytest.raises(UserError, match="nothing can be removed from an index of this kind: choose Flat or IVF"):
        make(i2i_run, out, f"data={later}", "update=true")
    other = train_i2i(tmp_path / "other", "seed=7", "trainer.epochs=1")
    with pytest.raises(UserError, match="holds the vectors of another encoder"):
        make(other, out, "update=true")
    assert state == ((out / "manifest.json").read_bytes(), (out / "index.faiss").read_bytes())


@pytest.mark.parametrize("kind", ["Flat", "IVF8,Flat", "IVF,SQ8", "HNSW8"])
def test_kinds_are_tuned_on_new_songs_and_told(
    kind: str, i2i_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make(i2i_run, tmp_path / "index", f"index={kind}", "recall=0.9")
    found = open_index(tmp_path / "index")
    assert isinstance(found.vectors, np.memmap) and found.index.ntotal == 48, "mapped, not read"
    known, new = found.songs, np.flatnonzero(~np.isin(np.arange(len(found.vectors)), found.songs))
    exact = np.argsort(-found.vectors[new] @ found.vectors[known].T, axis=1)[:, :48]
    songs = found.similar(found.vectors[new], 48)[1]
    hit = np.mean([len(set(a) & set(b)) / 48 for a, b in zip(songs, known[exact], strict=True)])
    assert hit == pytest.approx(manifest["recall"]) and hit >= 0.9
    printed = capsys.readouterr().out
    assert ("of the exact 48" in printed) == (kind != "Flat") and "as asked for" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("index=IVF600,Flat", "cannot be learned from 48 vectors"),
        ("index=annoy", "FAISS has no such index"),
        ("index=IVF0,Flat", "does not take these 48 vectors"),
        ("index=IDMap2,Flat", "does not take these 48 vectors"),
        ("index=ZnLattice1x10_6", "cannot be used here"),
        ("recall=0", "recall=0 must be above 0"),
        ("recall=1.5", "recall=1.5 must be above 0 and at most 1"),
    ],
)
def test_what_cannot_be_is_told(option: str, message: str, i2i_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        make(i2i_run, tmp_path / "index", option)
    assert not (tmp_path / "index").exists()


def test_files_of_two_versions_are_refused(i2i_run: Path, later: Path, tmp_path: Path) -> None:
    make(i2i_run, tmp_path / "index")
    old = (tmp_path / "index" / "index.faiss").read_bytes()
    make(i2i_run, tmp_path / "index", f"data={later}", "update=true")
    (tmp_path / "index" / "index.faiss").write_bytes(old)
    with pytest.raises(UserError, match="damaged"):
        open_index(tmp_path / "index", Catalogue.read(later))
