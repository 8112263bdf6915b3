"""Vector index: inner-product search with FAISS, on GPUs where there are any, or with Milvus (`retrieval.milvus`).

An index is named as FAISS names it, by its factory string: "Flat" (exact), "IVF4096,Flat" (lists, a few of which are
looked into), "IVF4096,PQ64" (and compressed), "HNSW32" (a graph). "IVF" without a number has 2√N lists; "auto" chooses
by the number of vectors.

Shapes: N indexed vectors, Q queries, D dimensions, K results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.milvus import TUNED, MilvusIndex, Values

GPU_MOST = 2048  # results of a query on a GPU
CHUNK = 100_000  # rows added or searched at a time: bounds the copies, not the result
FLAT_MOST = 200_000  # vectors up to which a search of all of them is fast enough
FLOAT_MOST = 20_000_000  # vectors up to which full precision fits a usual machine: 10 GB at 128 numbers
TRAINING = 40  # training vectors a list: what FAISS asks for at least


@cache
def gpu_resources(device: int) -> Any:
    """One FAISS scratch space a GPU for the whole process, of bounded size, or None without that GPU."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() <= device:
        return None
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(256 * 1024 * 1024)
    return resources


@dataclass(frozen=True)
class Only:
    """Vectors that a search may find: their numbers, and the expression by which Milvus tells them from others."""

    numbers: NDArray[np.int64]
    expression: str = ""

    @cached_property
    def selector(self) -> Any:
        """The same for FAISS."""
        import faiss

        known: Any = faiss
        return known.IDSelectorBitmap(np.packbits(np.bincount(self.numbers) > 0, bitorder="little"))


def choose(n: int) -> tuple[str, str]:
    """The factory string for n vectors, and the reason."""
    if n <= FLAT_MOST:
        return "Flat", f"up to {FLAT_MOST:,} vectors all are compared: exact"
    if n <= FLOAT_MOST:
        return "IVF,Flat", f"more than {FLAT_MOST:,} vectors: in lists, a few of which are looked into"
    return "IVF,SQ8", f"more than {FLOAT_MOST:,} vectors: in lists, and one byte instead of four for a number"


def build_index(
    vectors_ND: NDArray[Any],
    kind: str = "Flat",
    ids_N: NDArray[np.int64] | None = None,
    devices: Sequence[int] = (0,),
    seed: int = 0,
) -> Any:
    """A FAISS inner-product index of all rows.

    Args:
        vectors_ND: finite vectors.
        kind: factory string (see the module's docstring), or "auto".
        ids_N: numbers that a search gives, and by which vectors can be removed again; None: row numbers.
        devices: numbers of the GPUs that share the vectors, where there are GPUs.
        seed: of the sample that lists and codes are learned from.

    Raises:
        ValueError: no vector, a non-finite value, or an unknown kind.
    """
    if vectors_ND.ndim != 2 or not vectors_ND.size:
        raise ValueError(f"cannot index an array of shape {vectors_ND.shape}: at least one vector is needed")
    n = len(vectors_ND)
    index = to_gpu(_empty(kind, n, vectors_ND.shape[1], ids_N is not None), devices)
    try:
        if not index.is_trained:
            size = min(n, max(TRAINING * _lists(n), 256 * TRAINING))  # 256: the codes of a product quantizer
            sample = np.sort(np.random.default_rng(seed).choice(n, size, replace=False))
            _train(index, _clean(vectors_ND[sample]))
        add(index, vectors_ND, ids_N)
        search(index, vectors_ND[:1], 1)  # some kinds take vectors that they cannot look up
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        problem = "does not take these" if index.is_trained else "cannot be learned from"  # fewer than lists or codes
        raise ValueError(f"index {kind!r} {problem} {n} vectors ({reason})") from None
    return index


def add(
    index: Any, vectors_ND: NDArray[Any], ids_N: NDArray[np.int64] | None = None, values: Values | None = None
) -> None:
    """Add vectors to an index, those of an index with numbers of its own under the given ones; to one of Milvus, where
    it replaces those of the same numbers, with further fields."""
    if isinstance(index, MilvusIndex):
        assert ids_N is not None
        index.add(vectors_ND, ids_N, values)
        return
    for at in range(0, len(vectors_ND), CHUNK):
        part = _clean(vectors_ND[at : at + CHUNK])
        if ids_N is None:
            index.add(part)
        else:
            index.add_with_ids(part, np.ascontiguousarray(ids_N[at : at + CHUNK], dtype=np.int64))


def remove(index: Any, ids: NDArray[np.int64]) -> None:
    """Remove vectors from an index that was built with `ids_N`.

    Raises:
        ValueError: a graph of FAISS cannot forget; or a number is not in the index.
    """
    if isinstance(index, MilvusIndex):
        index.remove(ids)
        return
    try:
        removed = index.remove_ids(np.ascontiguousarray(ids, dtype=np.int64)) if len(ids) else 0
    except RuntimeError:
        raise ValueError(
            "nothing can be removed from an index of this kind: choose Flat or IVF, or build anew"
        ) from None
    if removed != len(ids):
        raise ValueError(f"{len(ids) - removed} of {len(ids)} vectors to remove are not in the index")


def search(
    index: Any, queries_QD: NDArray[Any], k: int, only: Only | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and positions of the k largest inner products, each (Q, k); position −1 where there are fewer than k.

    An approximate index looks the farther, the more results are wanted, and farther again for the queries of which it
    has found too few.

    Args:
        index: of FAISS or Milvus.
        queries_QD: finite vectors.
        k: results of a query.
        only: the vectors that may be found; None: all of them.
    """
    k_found = min(k, index.ntotal if only is None else len(only.numbers))
    if k_found > GPU_MOST or only is not None:  # FAISS selects in main memory alone
        index = to_cpu(index)
    scores = np.full((len(queries_QD), k), -np.inf, dtype=np.float32)
    positions = np.full((len(queries_QD), k), -1, dtype=np.int64)
    for at in range(0, len(queries_QD), CHUNK):
        rows, times, everything = np.arange(at, min(at + CHUNK, len(queries_QD))), 1, False
        while len(rows) and k_found and not everything:
            asked = _clean(queries_QD[rows])
            if isinstance(index, MilvusIndex):
                score, found, everything = index.search(asked, k_found, times, only.expression if only else "")
            else:
                parameters, everything = _how_far(index, k_found, times, only and only.selector)
                score, found = index.search(asked, k_found, params=parameters)
            scores[rows, :k_found], positions[rows, :k_found] = score, found
            rows, times = rows[(found < 0).any(axis=1)], 2 * times
    scores[positions < 0] = -np.inf  # FAISS puts the lowest float there
    return scores, positions


def _how_far(index: Any, k: int, times: int, select: Any = None) -> tuple[Any, bool]:
    """FAISS's parameters of a search for k results, `times` as far as usual, and whether it can go no farther.

    The effort stands beside a selector, which alone sets it back (findings/faiss_selector_and_nprobe.sh).
    """
    import faiss

    known: Any = faiss  # more than its stubs know
    index = faiss.downcast_index(index)
    more = times * max(1.0, k / TUNED)
    if hasattr(index, "hnsw"):
        effort = index.hnsw.efSearch
        wanted = effort if more == 1 else min(index.ntotal, max(2 * k, math.ceil(more * effort)))
        return known.SearchParametersHNSW(efSearch=wanted, sel=select), wanted >= index.ntotal
    if hasattr(index, "nprobe"):
        wanted = min(index.nlist, math.ceil(more * index.nprobe))
        return known.SearchParametersIVF(nprobe=wanted, sel=select), wanted >= index.nlist
    if isinstance(index, known.IndexShards):
        return _how_far(index.at(0), k, times)
    if isinstance(index, faiss.IndexPreTransform):
        inner, everything = _how_far(index.index, k, times, select)
        return inner and known.SearchParametersPreTransform(index_params=inner), everything
    if isinstance(index, faiss.IndexIDMap):
        if select is not None and isinstance(faiss.downcast_index(index.index), faiss.IndexPreTransform):
            raise ValueError("some vectors alone cannot be searched in an index of this kind: choose Flat, IVF or HNSW")
        return _how_far(index.index, k, times, select)
    return known.SearchParameters(sel=select) if select is not None else None, True


def tune(
    index: Any, kind: str, queries_QD: NDArray[Any], exact_QK: NDArray[np.int64], minimum: float
) -> tuple[int, float]:
    """Let an approximate index look no further than it must; the effort, and the share of the exact results it finds.

    The effort (lists looked into, or candidates of the graph; 0 where a kind has none) is doubled until `minimum` of
    `exact_QK`, the numbers of the queries' true neighbours, is found, or everything is looked into. Where they are more
    than `TUNED`, it must be found of the first `TUNED` and of all of them.

    Raises:
        ValueError: a kind whose effort cannot be set.
    """
    value, most, widths = 0, 0, {min(TUNED, exact_QK.shape[1]), exact_QK.shape[1]}
    if "IVF" in kind:
        value, most = 1, int(re.findall(r"IVF(\d+)", kind)[0])
    elif "HNSW" in kind:
        value, most = 16, index.ntotal
    while True:
        set_effort(index, kind, value)
        recall = min(share_found(search(index, queries_QD, k)[1], exact_QK[:, :k]) for k in widths)
        if recall >= minimum or value >= most:
            return value, recall
        value = min(2 * value, most)


def set_effort(index: Any, kind: str, value: int) -> None:
    """How far an approximate index looks, as `tune` counts it; nothing for a kind that has no such option.

    Raises:
        ValueError: a kind whose effort cannot be set.
    """
    import faiss

    if isinstance(index, MilvusIndex):
        index.effort = value
        return
    space = faiss.GpuParameterSpace() if hasattr(faiss, "GpuParameterSpace") else faiss.ParameterSpace()
    option = "nprobe" if "IVF" in kind else "efSearch" if "HNSW" in kind else ""
    try:
        if option:
            space.set_index_parameter(index, option, value)
    except RuntimeError as error:
        raise ValueError(f"{option} of index {kind!r} cannot be set ({str(error).strip().splitlines()[-1]})") from None


def exact_neighbours(queries_QD: NDArray[Any], vectors_ND: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Rows of the k vectors with the largest inner products, (Q, k), by comparing all."""
    import faiss

    found_QK: NDArray[np.int64] = faiss.knn(queries_QD, vectors_ND, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return found_QK


def share_found(found_QK: NDArray[np.int64], exact_QK: NDArray[np.int64]) -> float:
    """Share of the exact results that were found, mean over queries."""
    return float(np.mean([np.isin(exact, found).mean() for exact, found in zip(exact_QK, found_QK, strict=True)]))


def resolve(kind: str, n: int) -> str:
    """The factory string in full: "auto" chosen, "IVF" with its number of lists."""
    return re.sub(r"\bIVF(?![0-9])", f"IVF{_lists(n)}", choose(n)[0] if kind == "auto" else kind)


def unit_rows(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors (…, D) scaled to length 1; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-20), dtype=np.float32)


def to_gpu(index: Any, devices: Sequence[int] = (0,)) -> Any:
    """The index on a GPU, or its vectors divided among several; as it is where there are none, or not of this kind."""
    import faiss

    resources = [gpu_resources(device) for device in devices]
    if None in resources or not resources or isinstance(index, MilvusIndex):
        return index
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    try:
        return faiss.index_cpu_to_gpu_multiple_py(resources, index, options, list(devices))
    except RuntimeError:  # HNSW
        return index


def to_cpu(index: Any) -> Any:
    """The index in main memory, as it is saved."""
    import faiss

    return index if gpu_resources(0) is None or isinstance(index, MilvusIndex) else faiss.index_gpu_to_cpu(index)


def _empty(kind: str, n: int, dim: int, numbered: bool) -> Any:
    import faiss

    known = "Flat, IVF,Flat, IVF,SQ8, IVF,PQ64, HNSW32, or auto"
    full = resolve(kind, n)
    try:
        index = faiss.index_factory(dim, full, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError:
        raise ValueError(f"index {kind!r}: FAISS has no such index of {dim} numbers; say {known}") from None
    if "IVF" in full:
        lists = faiss.extract_index_ivf(index)
        lists.nprobe = max(1, lists.nlist // 8)
        return index
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = 128
    return faiss.IndexIDMap2(index) if numbered else index


def _train(index: Any, sample_ND: NDArray[np.float32]) -> None:
    """Train an index; a PCA in front of it learns of the vectors and their negatives, whose mean is zero.

    Inner products would change if it subtracted a mean, and if it left out the direction of one.
    """
    import faiss

    part, within = sample_ND, index
    if isinstance(index, faiss.IndexIDMap):
        within = faiss.downcast_index(index.index)
    for at in range(within.chain.size() if hasattr(within, "chain") else 0):
        transform = faiss.downcast_VectorTransform(within.chain.at(at))
        if not transform.is_trained:
            transform.train(np.concatenate([part, -part]) if isinstance(transform, faiss.PCAMatrix) else part)
        part = transform.apply(part)
    index.train(sample_ND)


def _lists(n: int) -> int:
    return max(1, min(n, round(2 * n**0.5)))


def _clean(vectors: NDArray[Any]) -> NDArray[np.float32]:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{int((~np.isfinite(vectors)).any(axis=1).sum())} vectors have NaN or infinite values")
    return vectors
