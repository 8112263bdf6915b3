"""Many searches at once, on a service folder: what `POST /search` answers, without a service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError
from tqdm import tqdm

from artifacts.folders import writing
from configs.errors import UserError, first_of
from configs.serving import SearchConfig
from data.audio.recordings import AudioError, check, decode
from serving import search
from serving.encoder import Content
from serving.model import open_model
from serving.refusals import Refused, in_words
from serving.schemas import Search
from serving.search import Asked
from serving.state import State

KIND = "search"
CHUNK = 64  # texts encoded, and queries answered, together
SHOWN = 5  # skipped lines that are named

Query = tuple[int, Search, Asked]  # its line, from 1


def search_songs(config: SearchConfig) -> None:
    """Run `pipeline.search` (its docstring says what it reads and writes)."""
    given, skipped = read_queries(Path(config.queries))
    state = State(open_model(config.model))
    queries, refused = made(state, given, Path(config.queries).parent)
    parts = [rows for some in alike(queries) for rows in answered(state, some, refused)]
    skipped |= refused
    for line, reason in sorted(skipped.items())[:SHOWN]:
        print(f"  line {line} is skipped: {reason}")
    if len(skipped) > SHOWN:
        print(f"  and {len(skipped) - SHOWN:,} more lines")
    if not parts:
        raise UserError(f"queries={config.queries}: no line can be answered")
    table = pl.concat(parts).sort("query", "rank")
    asked = given.keys() - skipped.keys()
    if empty := sorted(asked - set(table["query"])):
        print(f"  no song is found for line {first_of(empty, SHOWN)}")
    manifest = {
        "encoder": state.model.manifest["encoder"],
        "skipped": {str(line): why for line, why in skipped.items()},
        "without_songs": empty,
    }
    with writing(config.out, KIND, manifest) as folder:
        table.write_parquet(folder / "results.parquet")
    print(f"{config.out}: {table.height:,} songs for {len(asked):,} queries; {len(skipped):,} lines skipped")


def read_queries(path: Path) -> tuple[dict[int, Search], dict[int, str]]:
    """The queries of a file by their lines, and of lines that are none the reason. Blank lines count as lines.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # JSON may have other line ends within its texts
    except (OSError, ValueError) as error:
        raise UserError(f"queries={path} cannot be read as text ({error}): write one query a line, as JSON") from None
    queries, skipped = dict[int, Search](), dict[int, str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            queries[number] = Search.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            skipped[number] = ": ".join(filter(None, [".".join(map(str, first["loc"])), in_words(first)]))
    return queries, skipped


def made(state: State, given: dict[int, Search], folder: Path) -> tuple[list[Query], dict[int, str]]:
    """The queries with their vectors, and of lines that have none the reason; recordings lie in the folder."""
    texts = [line for line, one in given.items() if one.text is not None]
    found: dict[int, Asked | Refused] = {}
    for at in tqdm(range(0, len(texts), CHUNK), "texts", disable=not texts):
        part = texts[at : at + CHUNK]
        found |= zip(part, of_texts(state, [given[line].text or "" for line in part]), strict=True)
    others = [line for line in given if line not in found]
    for line in tqdm(others, "songs and recordings", disable=not others):
        one = given[line]
        try:
            found[line] = heard(state, folder / one.audio) if one.audio is not None else search.asked(state, one)
        except Refused as refusal:
            found[line] = refusal
    queries = [(line, given[line], one) for line, one in found.items() if isinstance(one, Asked)]
    return queries, {line: one.detail for line, one in found.items() if isinstance(one, Refused)}


def of_texts(state: State, texts: Sequence[str]) -> list[Asked | Refused]:
    """A query of each text, or why there is none."""
    try:
        return search.of_texts(state, texts)
    except Refused as refusal:
        return [refusal] * len(texts)


def heard(state: State, path: Path) -> Asked:
    """The query of a recording of which nothing else is known.

    Raises:
        Refused: it cannot be read, or the model does not hear.
    """
    encoder = state.model.encoder
    if not encoder.hears:
        raise Refused(409, search.DEAF)
    try:
        rate, shortest = int(encoder.audio["sample_rate"]), float(encoder.audio["min_seconds"])
        wave = decode(path, rate, float(encoder.audio["max_seconds"]))
        check(wave, shortest * rate)
    except (AudioError, OSError) as error:
        raise Refused(422, f"{path}: the recording cannot be used ({error})") from None
    vectors, _ = encoder.vectors(encoder.features([Content({}, wave)]), [{}])
    return Asked(vectors[0], "recording")


def alike(queries: list[Query]) -> Iterator[list[Query]]:
    """Queries that one search answers: by the same, of as many songs, among the same ones."""
    groups: dict[Any, list[Query]] = defaultdict(list)
    for query in queries:
        _, given, asked = query
        groups[asked.by == "text", given.k, given.among, given.where].append(query)
    for group in tqdm(groups.values(), "searches", disable=not groups):
        for at in range(0, len(group), CHUNK):
            yield group[at : at + CHUNK]


def answered(state: State, queries: list[Query], refused: dict[int, str]) -> list[pl.DataFrame]:
    """The songs of each query, a table each; where their condition is none, that is said of all of them."""
    _, given, _ = queries[0]
    try:
        found = search.nearest(state, [asked for _, _, asked in queries], given.k, given.among, given.where)
    except Refused as refusal:
        refused |= {line: refusal.detail for line, _, _ in queries}
        return []
    tables = []
    for (line, _, _), scores_K, numbers_K in zip(queries, *found, strict=True):
        kept = numbers_K >= 0
        ids = state.model.song_ids.gather(numbers_K[kept])
        rank = np.arange(1, kept.sum() + 1)
        columns = {"song_id": ids, "rank": rank, "score": scores_K[kept]}
        tables.append(pl.DataFrame({"query": np.full(len(rank), line)} | columns))
    return tables
