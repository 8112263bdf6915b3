"""Vector index: inner-product search with FAISS, on a GPU where there is one.

Shapes: N indexed vectors, Q queries, D dimensions, K results.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

GPU_MOST = 2048  # results of a query on a GPU
CHUNK = 100_000  # rows added or searched at a time: bounds the copies, not the result


@cache
def gpu_resources() -> Any:
    """One FAISS scratch space for the process (each would take memory on every GPU), or None without a GPU."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(256 * 1024 * 1024)
    return resources


def build_index(vectors_ND: NDArray[Any], kind: str = "flat", device: int = 0) -> Any:
    """A FAISS inner-product index of all rows; result positions are row numbers.

    Args:
        vectors_ND: finite vectors.
        kind: "flat" (exact), "ivf" (√N lists, an eighth of them probed) or "hnsw" (graph, CPU).
        device: GPU number, where there is a GPU.

    Raises:
        ValueError: no vector, a non-finite value, or an unknown kind.
    """
    import faiss

    if vectors_ND.ndim != 2 or not vectors_ND.size:
        raise ValueError(f"cannot index an array of shape {vectors_ND.shape}: at least one vector is needed")
    n, dim = vectors_ND.shape
    index: Any
    if kind == "flat":
        index = faiss.IndexFlatIP(dim)
    elif kind == "ivf":
        lists = max(1, int(np.sqrt(n)))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // 8)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = 128
    else:
        raise ValueError(f"index kind {kind!r}: expected flat, ivf or hnsw")
    if kind != "hnsw" and gpu_resources() is not None:
        index = faiss.index_cpu_to_gpu(gpu_resources(), device, index)
    if not index.is_trained:
        index.train(_clean(vectors_ND[:: max(1, n // (64 * max(1, int(np.sqrt(n)))))]))
    for at in range(0, n, CHUNK):
        index.add(_clean(vectors_ND[at : at + CHUNK]))
    return index


def search(index: Any, queries_QD: NDArray[Any], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and positions of the k largest inner products, each (Q, k); position −1 where there are fewer than k."""
    k_found = min(k, index.ntotal)
    if k_found > GPU_MOST:
        index = to_cpu(index)
    scores = np.full((len(queries_QD), k), -np.inf, dtype=np.float32)
    positions = np.full((len(queries_QD), k), -1, dtype=np.int64)
    for at in range(0, len(queries_QD), CHUNK):
        part = slice(at, at + CHUNK)
        scores[part, :k_found], positions[part, :k_found] = index.search(_clean(queries_QD[part]), k_found)
    scores[positions < 0] = -np.inf  # FAISS puts the lowest float there
    return scores, positions


def unit_rows(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors (…, D) scaled to length 1; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-20), dtype=np.float32)


def to_cpu(index: Any) -> Any:
    """The index in main memory, as it is saved."""
    import faiss

    return faiss.index_gpu_to_cpu(index) if hasattr(index, "getDevice") else index


def _clean(vectors: NDArray[Any]) -> NDArray[np.float32]:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{int((~np.isfinite(vectors)).any(axis=1).sum())} vectors have NaN or infinite values")
    return vectors
