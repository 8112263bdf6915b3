"""The index at size: what `index=auto` chooses, what it finds, how fast beside FAISS alone, and changing it in place.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.index_scale sizes=[100000,1000000] out=runs/index_scale.json
    OMP_NUM_THREADS=1 python -m benchmarks.speed.index_scale sizes=[100000] milvus=true out=runs/milvus.json
    OMP_NUM_THREADS=1 python -m benchmarks.speed.index_scale sizes=[100000] uri=http://127.0.0.1:19530 server_pid=PID

Generated song vectors: artists of unlike sizes around genres, in fewer dimensions than a vector has numbers, of length
one. For each size: the kind that is chosen and why, recall@10 of queries that the index was not tuned on, queries a
second beside a FAISS index of the same factory string, effort and training sample, asked in turns, memory, and the time
to replace one song in a hundred and to put as many away, beside the time to build. With `milvus=true` the same of
milvus-lite, which runs in this process, and with `uri=` of a Milvus server: how many of FAISS's ten they find too; all
with a filter that one song in ten passes; and asked by several threads at once, a query at a time.

Shapes: N songs, Q queries, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.measure import memory, tell, timed
from benchmarks.speed.index_milvus import Beside, K, lite, server
from configs.errors import UserError
from configs.load import command
from configs.options import opt
from data.arrays import FloatArray, IntArray
from retrieval.index import (
    add,
    build_index,
    choose,
    exact_neighbours,
    remove,
    resolve,
    search,
    set_effort,
    share_found,
    tune,
    unit_rows,
)

GENRES, INNER, SONGS_OF_ARTIST = 50, 24, 20
TUNED_ON = 200


@dataclass
class IndexScaleConfig:
    """Options of this benchmark."""

    sizes: list[int] = opt([100_000, 1_000_000], "numbers of vectors")
    dim: int = opt(128, "numbers of a vector")
    queries: int = opt(1000, "queries asked at a time")
    repeats: int = opt(5, "times that ours and FAISS alone are asked, in turns")
    index: str = opt("auto", "FAISS factory string, or auto")
    recall: float = opt(0.95, "share of the exact ten that the index is tuned to find")
    milvus: bool = opt(False, "also in milvus-lite")
    uri: str | None = opt(None, "also in the Milvus server http://…")
    server_pid: int = opt(0, "the server's process on this machine, for its memory (0: not measured)")
    seed: int = opt(0, "seed of the vectors")
    out: str | None = opt(None, "JSON file to write")


def main(config: IndexScaleConfig) -> None:
    """Run the command (see the module's docstring)."""
    if min([*config.sizes, config.dim, config.queries, config.repeats]) < 1 or not config.sizes:
        raise UserError("sizes, dim, queries and repeats must be at least 1")
    tell(config, {"sizes": [measure(config, n) for n in tqdm(config.sizes, desc="sizes")]})


def measure(config: IndexScaleConfig, n: int) -> dict[str, Any]:
    """Everything about one size."""
    vectors = song_like(n + config.queries + TUNED_ON, config.dim, config.seed)
    songs, tuning, queries = np.split(vectors, [n, n + TUNED_ON])
    seconds: dict[str, float] = {}
    number, kind, before = np.arange(n), resolve(config.index, n), memory("VmRSS")

    def recall(among: IntArray) -> float:
        found, exact = search(index, queries, K)[1], exact_neighbours(queries, songs[among], K)
        return share_found(found, among[exact])

    with timed(seconds, "build"):
        index = build_index(songs, kind, number, seed=config.seed)
    taken = memory("VmRSS") - before
    with timed(seconds, "tune"):
        effort, _ = tune(index, kind, tuning, exact_neighbours(tuning, songs, K), config.recall)
    found: dict[str, Any] = {"recall@10": recall(number)} | rates(config, index, songs, kind, effort, queries)
    if config.milvus or config.uri:
        beside = Beside(index, kind, songs, tuning, queries, config.recall, config.repeats)
        found |= in_milvus(config, beside)
    if "HNSW" not in kind:  # which FAISS cannot take anything out of
        few = np.random.default_rng(config.seed).choice(n, max(1, n // 100), replace=False)
        found |= changed(index, songs, few, recall, seconds)
    return {
        "songs": n,
        "kind": kind,
        "reason": choose(n)[1] if config.index == "auto" else "as asked for",
        "effort": effort,
        **found,
        "index_mb": taken,
        "seconds": seconds,
    }


def changed(
    index: Any, songs: FloatArray, few: IntArray, recall: Callable[[IntArray], float], seconds: dict[str, float]
) -> dict[str, float]:
    """Recall when a few songs have been replaced, and when they have been removed."""
    number, found = np.arange(len(songs)), {}
    with timed(seconds, "replace 1 %"):
        remove(index, few)
        songs[few] = unit_rows(songs[few] + songs[few[::-1]])
        add(index, songs[few], few)
    found["recall@10 after replacing"] = recall(number)
    with timed(seconds, "remove 1 %"):
        remove(index, few)
    found["recall@10 after removing"] = recall(np.setdiff1d(number, few))
    return found


def rates(
    config: IndexScaleConfig, index: Any, songs: FloatArray, kind: str, effort: int, queries: FloatArray
) -> dict[str, float]:
    """Queries a second of ours and of FAISS alone, asked in turns, and the median of the ratios."""
    import faiss

    bare = faiss.index_factory(config.dim, kind, faiss.METRIC_INNER_PRODUCT)
    bare.train(songs[: max(10_000, 40 * getattr(bare, "nlist", 0))])
    bare.add(songs)
    set_effort(bare, kind, effort)
    turns: list[dict[str, float]] = [{} for _ in range(config.repeats)]
    for seconds in turns:
        with timed(seconds, "ours"):
            search(index, queries, K)
        with timed(seconds, "alone"):
            bare.search(queries, K)
    ours, alone = (np.array([len(queries) / seconds[name] for seconds in turns]) for name in ("ours", "alone"))
    return {
        "queries_per_second": float(np.median(ours)),
        "faiss_queries_per_second": float(np.median(alone)),
        "ours_over_faiss": float(np.median(ours / alone)),
    }


def in_milvus(config: IndexScaleConfig, beside: Beside) -> dict[str, Any]:
    """The same in Milvus, beside FAISS."""
    found: dict[str, Any] = {"faiss": beside.of_faiss()}
    if config.milvus:
        with lite() as connection:
            found["milvus_lite"] = beside.in_milvus(connection, "self")
    if config.uri:
        with server(config.uri) as connection:
            found["milvus_server"] = beside.in_milvus(connection, config.server_pid)
    return found


def song_like(n: int, dim: int, seed: int) -> FloatArray:
    """Vectors (N, D) in random order; the last ones may serve as queries."""
    rng = np.random.default_rng(seed)
    genre = rng.standard_normal((GENRES, INNER), dtype=np.float32)
    artists = max(1, n // SONGS_OF_ARTIST)
    artist = genre[rng.integers(0, GENRES, artists)] + rng.standard_normal((artists, INNER), dtype=np.float32)
    whose = (artists * rng.random(n) ** 2).astype(np.int64)  # some have many songs, many have few
    out = np.empty((n, dim), dtype=np.float32)
    lift = rng.standard_normal((INNER, dim), dtype=np.float32) / np.float32(INNER**0.5)
    for at in range(0, n, 100_000):
        part = artist[whose[at : at + 100_000]]
        part += rng.standard_normal(part.shape, dtype=np.float32)
        noise = rng.standard_normal((len(part), dim), dtype=np.float32)
        out[at : at + 100_000] = unit_rows(part @ lift + np.float32(0.1) * noise)
    return out


if __name__ == "__main__":
    command(main, IndexScaleConfig, __doc__)
