"""Shards of rows: the same for any number of processes, whole, and joined as they were."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from data import row_shards
from data.row_shards import Ranks, RowShards


def test_every_row_is_in_one_shard_of_one_process(tmp_path: Path) -> None:
    for n, size in ((0, 4096), (1, 4096), (4097, 4096), (1_100_000, 8192), (200_000_000, 65_536)):
        shards = RowShards(tmp_path, n)
        assert shards.size == size
        stretches = [shards.rows(shard) for shard in range(shards.count)]
        assert stretches[0].start == 0 and stretches[-1].stop == n
        assert all(one.stop == other.start for one, other in pairwise(stretches))
        for ranks in (1, 2, 3):
            dealt = [shard for rank in range(ranks) for shard in shards.left(Ranks(rank, ranks))]
            assert sorted(dealt) == list(range(shards.count))


def test_what_is_written_is_left_out_and_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shards, "LEAST", 4)
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    rows[5] = np.nan
    shards = RowShards(tmp_path / "shards", 10)
    for shard in (2, 0):
        shards.write(shard, a=rows[shards.rows(shard)], b=-rows[shards.rows(shard)])
    assert shards.left(Ranks(0, 2)) == [] and shards.left(Ranks(1, 2)) == [1] and RowShards(tmp_path, 10).count == 3
    (tmp_path / "a.npy").write_bytes(b"of another command, which has it open")
    with pytest.raises(UserError, match="No such file"):
        shards.join("a", tmp_path / "a.npy")
    assert (tmp_path / "a.npy").read_bytes() == b"of another command, which has it open"
    shards.write(1, a=rows[4:8], b=-rows[4:8])
    assert sorted(path.suffix for path in shards.folder.iterdir()) == [".npz"] * 3
    for name, expected in (("a", rows), ("b", -rows)):
        joined = shards.join(name, tmp_path / f"{name}.npy")
        assert isinstance(joined, np.memmap) and joined.dtype == np.float32
        np.testing.assert_array_equal(joined, expected)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="vectors cannot be kept here"):
        RowShards(tmp_path / "file", 10).write(0, a=rows[:4])
