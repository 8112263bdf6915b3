"""An index in Milvus beside the same in FAISS: what `benchmarks.speed.index_scale` measures of milvus-lite and of a
server.

Shapes: N songs, Q queries, D vector size, K results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.measure import memory, timed
from data.arrays import FloatArray, IntArray
from retrieval.index import Only, add, build_index, exact_neighbours, remove, search, share_found, tune
from retrieval.milvus import Connection, MilvusIndex

K, COLLECTION = 10, "benchmark_songs"
THREADS, SECONDS = (1, 4, 16), 5.0  # that ask at once, and how long


@dataclass
class Beside:
    """What an index in Milvus is compared with: an index of FAISS of the same kind, and its songs.

    `tuning` and `queries` are (Q, D); rates are medians of `repeats` turns.
    """

    index: Any
    kind: str
    songs: FloatArray
    tuning: FloatArray
    queries: FloatArray
    recall: float
    repeats: int

    def of_faiss(self) -> dict[str, Any]:
        """Filtered, and asked by several threads, as Milvus is."""
        some = Only(np.arange(len(self.songs))[::10])
        flat = self.kind == "Flat"  # as inference.song_index has it
        chosen = build_index(self.songs[some.numbers], self.kind, some.numbers) if flat else self.index
        return self.filtered(chosen, None if flat else some) | self.at_once(self.index)

    def filtered(self, index: Any, some: Only | None) -> dict[str, float]:
        """Recall and queries a second where one song in ten may be found."""
        numbers = np.arange(len(self.songs))[::10]
        exact = numbers[exact_neighbours(self.queries, self.songs[numbers], K)]
        return {
            "filtered_recall@10": share_found(search(index, self.queries, K, some)[1], exact),
            "filtered_queries_per_second": self.rate(index, some),
        }

    def rate(self, index: Any, only: Only | None = None) -> float:
        """Queries a second, all asked at a time."""
        turns: list[dict[str, float]] = [{} for _ in range(self.repeats)]
        for seconds in turns:
            with timed(seconds, "all"):
                search(index, self.queries, K, only)
        return float(np.median([len(self.queries) / seconds["all"] for seconds in turns]))

    def at_once(self, index: Any) -> dict[str, Any]:
        """Queries a second and milliseconds of one (median, 99th of a hundred), by the number of threads that ask."""
        return {f"{n} threads": asked_by(n, index, self.queries) for n in THREADS}

    def in_milvus(self, connection: Connection, process: int | str) -> dict[str, Any]:
        """Build, tune, ask, load, replace and remove; memory is that of a process."""
        seconds: dict[str, float] = {}
        number, before = np.arange(len(self.songs)), memory("VmRSS", process)
        exact, some = exact_neighbours(self.queries, self.songs, K), Only(number[::10], "tenth == 0")
        with timed(seconds, "build"):
            of = {"tenth": "integer"}, lambda rows: tenths(number[rows])
            there = MilvusIndex.made(connection, COLLECTION, self.kind, self.songs, number, *of)
        taken = memory("VmRSS", process) - before
        with timed(seconds, "tune"):
            effort, _ = tune(there, self.kind, self.tuning, exact_neighbours(self.tuning, self.songs, K), self.recall)
        lists = search(there, self.queries, K)[1]
        found = {
            "effort": effort,
            "recall@10": share_found(lists, exact),
            "share_of_faiss_lists": share_found(lists, search(self.index, self.queries, K)[1]),
            "index_mb": taken,
            "queries_per_second": self.rate(there),
            **self.filtered(there, some),
            **self.at_once(there),
        }
        connection.client.release_collection(COLLECTION)
        with timed(seconds, "load"):
            there = MilvusIndex(connection, COLLECTION, self.kind, effort)
        self.change(there, seconds)
        return found | {"recall@10 after changes": self.recall_after(there), "seconds": seconds}

    def few(self) -> IntArray:
        """One song in a hundred."""
        n = len(self.songs)
        return np.random.default_rng(0).choice(n, max(1, n // 100), replace=False)

    def change(self, there: MilvusIndex, seconds: dict[str, float]) -> None:
        """Replace one song in a hundred by itself, count, and remove them."""
        few = self.few()
        with timed(seconds, "replace 1 %"):
            add(there, self.songs[few], few, lambda rows: tenths(few[rows]))
        with timed(seconds, "see every change"):
            there._count()
        with timed(seconds, "remove 1 %"):
            remove(there, few)

    def recall_after(self, there: MilvusIndex) -> float:
        """Recall@10 among the songs that are left."""
        left = np.setdiff1d(np.arange(len(self.songs)), self.few())
        exact = left[exact_neighbours(self.queries, self.songs[left], K)]
        return share_found(search(there, self.queries, K)[1], exact)


def tenths(numbers: IntArray) -> list[dict[str, int]]:
    """What is said of songs: one in ten is 0."""
    return [{"tenth": int(number) % 10} for number in numbers]


def asked_by(n: int, index: Any, queries_QD: FloatArray) -> dict[str, float]:
    """Queries a second that threads get answered, each one at a time, and milliseconds of a query."""
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    def ask(first: int) -> None:
        at = first
        while (began := time.perf_counter()) < end:
            search(index, queries_QD[at % len(queries_QD)][None], K)
            took.append(time.perf_counter() - began)
            at += n

    threads = [threading.Thread(target=ask, args=(one,)) for one in range(n)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return {
        "queries_per_second": len(took) / SECONDS,
        "p50_ms": float(1000 * np.median(took)),
        "p99_ms": float(1000 * np.quantile(took, 0.99)),
    }


@contextmanager
def lite() -> Iterator[Connection]:
    """milvus-lite, in a folder of its own."""
    with TemporaryDirectory() as folder:
        connection = Connection(f"{folder}/songs.db")
        yield connection
        connection.close()


@contextmanager
def server(uri: str) -> Iterator[Connection]:
    """A server, which is left as it was."""
    connection = Connection(uri)
    yield connection
    connection.client.drop_collection(COLLECTION)
    connection.close()
