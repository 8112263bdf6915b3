"""A Milvus collection as an index: `retrieval.index` adds to it, removes from it and searches it as it does with FAISS.

Milvus is a server or cluster (`http://…`), or milvus-lite in this process, which keeps a folder `….db` for one process
at a time. Kinds are named as FAISS names them: Flat, IVF1024,Flat, IVF1024,SQ8, HNSW32.

Shapes: N indexed vectors, Q queries, D dimensions, K results.
"""

from __future__ import annotations

import logging
import math
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENTRY, VECTOR = "entry", "vector"  # fields of a collection beside those of the caller
MOST = 16_384  # results of a query: Milvus's limit
SENT = 2_000  # vectors sent at a time
ASKED, RESULTS = 100, 200_000  # queries and results asked for at a time
SECONDS = 60  # to wait for a server: at the first contact, for a count, and for a search
TUNED = 100  # results up to which a search looks as far as its effort says; for more it looks farther
TEXT = {"datatype": "VARCHAR", "max_length": 65_535}
FIELDS: dict[str, dict[str, Any]] = {
    "text": TEXT,
    "integer": {"datatype": "INT64"},
    "number": {"datatype": "DOUBLE"},
    "true or false": {"datatype": "BOOL"},
    "list of text": TEXT | {"datatype": "ARRAY", "element_type": "VARCHAR", "max_capacity": 4_096},
}


class MilvusError(OSError):
    """A Milvus cannot be reached, or refuses something; in one line."""


Values = Callable[[slice], Sequence[Mapping[str, Any]]]  # what further fields are for some of the vectors


class Connection:
    """A connection to a Milvus; that of milvus-lite ends when nobody has it any more.

    Raises:
        MilvusError: no such Milvus, or pymilvus or milvus-lite is missing.
    """

    def __init__(self, uri: str, token: str = "") -> None:
        self.uri = uri
        try:
            from pymilvus import MilvusClient
        except ImportError:
            raise MilvusError("Milvus needs pymilvus: pip install -e '.[milvus]'") from None
        for name in ("pymilvus", "milvus_lite"):  # they log every error with its trace, which is raised too
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        embedded = uri.endswith(".db")
        try:
            with plainly(uri):
                self.client = MilvusClient(uri, token=token, timeout=SECONDS)
        except MilvusError:
            if embedded and not _has_lite():
                raise MilvusError("Milvus without a server needs: pip install --no-deps milvus-lite") from None
            if embedded:
                raise MilvusError(
                    f"{uri} cannot be opened: it is damaged, or another process has it open. An embedded Milvus serves "
                    "one process at a time; several need a Milvus server (uri=http://…)"
                ) from None
            raise
        self.close = weakref.finalize(self, _close, self.client, uri if embedded else None)

    @classmethod
    def to(cls, uri: str, token: str = "") -> Connection:
        """The connection that there is, or a new one: milvus-lite opens a folder once a process."""
        there = _connections.get(uri)
        if there is None or not there.close.alive:
            there = _connections[uri] = cls(uri, token)
        return there


_connections: weakref.WeakValueDictionary[str, Connection] = weakref.WeakValueDictionary()


class MilvusIndex:
    """A collection. `effort` is how far an approximate index looks (lists, candidates), as for FAISS; `seconds` is the
    timeout of a search.

    Args:
        connection: to the Milvus that has it.
        name: of the collection, or its alias.
        kind: FAISS's name of it.
        effort: 0 for the usual one.

    Raises:
        MilvusError: there is no such collection.
    """

    def __init__(self, connection: Connection, name: str, kind: str, effort: int = 0) -> None:
        self.connection, self.name, self.kind = connection, name, kind
        self.type, self.build, self.lists = _type_of(kind)
        self.effort = effort or max(1, self.lists // 8) if self.lists else effort or 128
        self.seconds: float = SECONDS
        with plainly(connection.uri):
            connection.client.load_collection(name)
        self._count()

    @classmethod
    def made(
        cls,
        connection: Connection,
        name: str,
        kind: str,
        vectors_ND: NDArray[Any],
        ids_N: NDArray[np.int64],
        columns: Mapping[str, str] | None = None,
        values: Values | None = None,
    ) -> MilvusIndex:
        """A new collection of vectors, in the place of one of this name.

        Args:
            connection: to the Milvus that is to have it.
            name: of the collection.
            kind: FAISS's name of it (see the module's docstring).
            vectors_ND: finite vectors.
            ids_N: numbers that a search gives.
            columns: further fields, and their kinds (of FIELDS).
            values: what these are for the vectors of a slice, never None.

        Raises:
            ValueError: Milvus has no such kind.
            MilvusError: Milvus refuses something.
        """
        from pymilvus import DataType

        client, (of_type, build, _) = connection.client, _type_of(kind)
        schema = client.create_schema(auto_id=False)
        schema.add_field(ENTRY, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=vectors_ND.shape[1])
        for column, column_kind in (columns or {}).items():
            types = {key: getattr(DataType, one) if isinstance(one, str) else one
                     for key, one in FIELDS[column_kind].items()}  # fmt: skip
            schema.add_field(column, **types)
        index = client.prepare_index_params()
        # twice "params", or milvus-lite overlooks them (findings/milvus_lite_index_params.sh)
        index.add_index(VECTOR, index_type=of_type, metric_type="IP", params={"params": build})
        with plainly(connection.uri):
            if client.has_collection(name):
                client.drop_collection(name)
            client.create_collection(name, schema=schema)
            _send(client, name, vectors_ND, ids_N, values)
            client.flush(name)
            client.create_index(name, index)  # of all vectors at once; waits for it
        return cls(connection, name, kind)

    def add(self, vectors_ND: NDArray[Any], ids_N: NDArray[np.int64], values: Values | None = None) -> None:
        """Add vectors, or replace those of the same numbers."""
        with plainly(self.connection.uri):
            _send(self.connection.client, self.name, vectors_ND, ids_N, values)
            self.connection.client.flush(self.name)
        self._count()

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove vectors; a number that is not there is none to remove."""
        with plainly(self.connection.uri):
            for at in range(0, len(ids), SENT):
                self.connection.client.delete(self.name, ids=ids[at : at + SENT].tolist())
        self._count()

    def remove_from(self, first: int) -> None:
        """Remove all vectors from a number on."""
        with plainly(self.connection.uri):
            self.connection.client.delete(self.name, filter=f"{ENTRY} >= {first}")
        self._count()

    def search(
        self, queries_QD: NDArray[Any], k: int, times: int = 1, only: str = ""
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
        """Scores and numbers (Q, K) of the largest inner products, −1 where fewer are found; whether it saw all.

        It looks `times` as far as usual, for vectors for which the expression `only` holds. Vectors that came or went
        through this connection are seen at once, those of others after seconds: a server that has to be sure of them
        ("Strong") answers no sooner than at its next tick, 200 ms later.

        Raises:
            ValueError: more than MOST results.
        """
        if k > MOST:
            raise ValueError(f"a search in Milvus gives at most {MOST:,} results, {k:,} were asked for")
        farther = math.ceil(times * max(1.0, k / TUNED) * self.effort)
        most = self.lists or self.ntotal
        wanted = max(min(farther, most), 0 if self.lists else k)
        how = {"IVF": {"nprobe": wanted}, "HNSW": {"ef": wanted}}.get(self.type.split("_")[0], {})
        scores = np.full((len(queries_QD), k), -np.inf, dtype=np.float32)
        entries = np.full((len(queries_QD), k), -1, dtype=np.int64)
        part = max(1, min(RESULTS // max(1, k), ASKED))
        for at in range(0, len(queries_QD), part):
            asked = queries_QD[at : at + part]
            with plainly(self.connection.uri):
                found = self.connection.client.search(
                    self.name, list(asked), filter=only, limit=k, output_fields=[ENTRY],  # else milvus-lite sends all
                    search_params={"metric_type": "IP", "params": how}, consistency_level="Bounded",
                    timeout=self.seconds,
                )  # fmt: skip
            here = np.arange(k) < np.array([len(hits) for hits in found])[:, None]
            scores[at : at + part][here] = np.concatenate([hits.distances for hits in found])
            entries[at : at + part][here] = np.concatenate([hits.ids for hits in found])
        return scores, entries, not how or wanted >= most

    def _count(self) -> None:
        """Count the vectors, when all changes are seen."""
        with plainly(self.connection.uri):
            counted = self.connection.client.query(
                self.name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=SECONDS
            )
        self.ntotal = int(counted[0]["count(*)"])


def publish(connection: Connection, alias: str, name: str, kept: Sequence[str] = ()) -> None:
    """Let an alias stand for a collection from now on, and drop older versions: all but those kept and the last."""
    from pymilvus import MilvusException

    client = connection.client
    with plainly(connection.uri):
        # not describe_alias, which may look in another database (findings/milvus_alias_in_a_database.sh)
        last = client.describe_collection(alias)["collection_name"] if client.has_collection(alias) else ""
        if last == name:  # an update: the version before it stays
            return
        try:
            client.alter_alias(name, alias)
        except MilvusException:
            client.create_alias(name, alias)
        for other in client.list_collections():
            if version_of(other, alias) and other not in (name, last, *kept):
                client.drop_collection(other)


def next_version(connection: Connection, alias: str) -> int:
    """A number that no collection of an alias has had."""
    with plainly(connection.uri):
        return 1 + max((version_of(name, alias) for name in connection.client.list_collections()), default=0)


def version_of(name: str, alias: str) -> int:
    """The number of a collection `ALIAS_ENCODER_NUMBER`; 0 of another."""
    found = re.fullmatch(re.escape(alias) + r"_[0-9a-f]+_(\d+)", name)
    return int(found[1]) if found else 0


@contextmanager
def plainly(uri: str) -> Iterator[None]:
    """Raise MilvusError, in one line, for whatever a Milvus refuses."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("pymilvus", "grpc")):
            raise
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise MilvusError(f"Milvus at {uri}: {reason[:300]}") from None


def _send(client: Any, name: str, vectors_ND: NDArray[Any], ids_N: NDArray[np.int64], values: Values | None) -> None:
    """Write rows, by number."""
    for at in range(0, len(vectors_ND), SENT):
        part = np.ascontiguousarray(vectors_ND[at : at + SENT], dtype=np.float32)
        if not np.isfinite(part).all():
            raise ValueError(f"{int((~np.isfinite(part)).any(axis=1).sum())} vectors have NaN or infinite values")
        more = values(slice(at, at + SENT)) if values else [{}] * len(part)
        rows = zip(ids_N[at : at + SENT].tolist(), part, more, strict=True)
        client.upsert(name, [{**of, ENTRY: entry, VECTOR: vector} for entry, vector, of in rows])


def _type_of(kind: str) -> tuple[str, dict[str, int], int]:
    """Milvus's type of a kind, what it is built with, and its number of lists.

    Raises:
        ValueError: Milvus has no such kind.
    """
    if kind == "Flat":
        return "FLAT", {}, 0
    if found := re.fullmatch(r"HNSW(\d+)", kind):
        return "HNSW", {"M": int(found[1]), "efConstruction": 200}, 0
    if found := re.fullmatch(r"IVF(\d+),(Flat|SQ8)", kind):
        return f"IVF_{found[2].upper()}", {"nlist": int(found[1])}, int(found[1])
    raise ValueError(f"index {kind!r}: in Milvus say Flat, IVF,Flat, IVF,SQ8, HNSW32, or auto")


def _has_lite() -> bool:
    from importlib.util import find_spec

    return find_spec("milvus_lite") is not None


def _close(client: Any, path: str | None) -> None:
    """End a connection; of milvus-lite also the server in this process."""
    client.close()
    if path is not None:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(path)
