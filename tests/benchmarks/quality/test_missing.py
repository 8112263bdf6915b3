"""New songs that lack a modality, on a toy in the published form of Last.fm-2K."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.item_cold.__main__ import ItemColdConfig, main
from benchmarks.quality.item_cold.encoders import WITHOUT
from configs.load import load
from tests.benchmarks.small import I2I, listed

ITEMS, USERS, KINDS = 60, 80, 3


@pytest.fixture(scope="module")
def lfm2k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of items and of users. Text tells the kind, audio is noise: whoever lacks text knows nothing."""
    folder, rng = tmp_path_factory.mktemp("toy") / "lfm2k", np.random.default_rng(0)
    folder.mkdir()
    plays = [(u, i) for u in range(USERS) for i in range(ITEMS) if u % KINDS == i % KINDS and rng.random() < 0.6]
    head = "userID\titemID\trating\tx_label\n"
    (folder / "lfm2k.inter").write_text(head + "".join(f"{u}\t{i}\t1\t1\n" for u, i in plays))
    (folder / "lfm2k_og.inter").write_text(head + "".join(f"{u + 900}\t{i + 100}\t1\t1\n" for u, i in plays))
    (folder / "lfm2k_song.tsv").write_text(
        "artistID\tname_artist\n" + "".join(f"{i + 100}\tBand {i}\n" for i in range(ITEMS))
    )
    (folder / "lfm2k_text.tsv").write_text("artistID\ttext\n" + "".join(f"{i + 100}\ttag\n" for i in range(ITEMS)))
    kind = np.eye(KINDS)[np.arange(ITEMS) % KINDS]
    np.save(folder / "all-MiniLM-L6-v2.npy", kind @ rng.standard_normal((KINDS, 16)) + 0.1 * rng.random((ITEMS, 16)))
    np.save(folder / "vggish.npy", rng.standard_normal((ITEMS, 16)))
    np.save(folder / "whisper.npy", rng.standard_normal((ITEMS, 16)))
    return folder


def run(lfm2k: Path, out: Path, features: str) -> dict[str, dict[str, float]]:
    options = [f"data={lfm2k}", f"out={out}", "seeds=1", f"features=[{features}]", "methods=[missing]"]
    main(load(ItemColdConfig, [*options, f"i2i={listed([*I2I, 'trainer.epochs=10', 'objective.bcl_weight=0'])}"]))
    return {row["method"]: row for row in json.loads(out.read_text())}


def test_without_its_text_a_new_song_is_found_by_audio_alone(
    lfm2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(lfm2k, tmp_path / "both.json", "text+audio")
    assert set(rows) == {"firstplay", "field dropout", *WITHOUT}
    for of in ("firstplay", "field dropout"):
        whole, no_text, no_audio = (
            rows[name]["ndcg@20"] for name in (of, f"{of}, new songs without text", f"{of}, new songs without audio")
        )
        # Six songs are held out, two of each kind: all that a user can find is their order.
        assert min(whole, no_audio) > 0.8 and no_text < min(whole, no_audio) - 0.1, (of, whole, no_text, no_audio)
    assert "not measured" not in capsys.readouterr().out


def test_a_feature_set_with_one_modality_has_nothing_to_hide(
    lfm2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(run(lfm2k, tmp_path / "text.json", "text")) == {"firstplay", "field dropout"}
    assert "not measured" in (shown := capsys.readouterr().out) and all(name in shown for name in WITHOUT)
