"""Evaluate on new songs' held-out plays, beside baselines in the same run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from artifacts.folders import scratch, writing
from artifacts.tracking import log_table, made, tracked, used
from configs.errors import UserError
from configs.load import recorded
from configs.targeting import EvaluateConfig
from data.arrays import AnyArray, FloatArray, IntArray
from data.catalogue import Catalogue, first_genre, held_out_listeners
from data.fields import SongFields, read_fields
from evaluation import baselines, ease, figures
from evaluation.comparison import CAT, OURS, RANKED, TASTE, compare
from evaluation.outcomes import gate_figures, logged, outcome_rates, reach_figures, read_truth
from evaluation.report.genre_maps import genre_maps_svg
from evaluation.report.page import write_report
from inference.audience import listening_of, ranker_of, targeting_for
from inference.ranking import read_ranker, song_facts
from inference.song_index import SongIndex, open_index
from inference.spark_audience import SparkListening, unbounded
from inference.targeting import targeting_on
from inference.vectors import Boundary, boundary_vectors
from retrieval.audience import Audience, union
from retrieval.candidates import Candidates, ceilings
from retrieval.index import build_index
from retrieval.listening import Listening
from retrieval.songs import Songs
from retrieval.targeting import Targeting

KIND = "evaluation"
WITH_GENRE, UNTRAINED, CB2CF = "content, genre included", "content kNN, our targeting", "CB2CF (λ=0)"
RANDOM, ACTIVE, KNN, EASE = "random", "most active users", "content kNN", "ridge → EASE"


@tracked("evaluate")
def evaluate(config: EvaluateConfig, run: Any) -> None:
    """Run `pipeline.evaluate` (its docstring says what it reads and writes)."""
    catalogue = Catalogue.read(config.data)
    trained = {CB2CF: open_index(config.cb2cf, catalogue)} if config.cb2cf else {}
    trained["FirstPlay"] = open_index(config.index, catalogue)
    compared = {name: open_index(folder, catalogue) for name, folder in config.compare.items()}
    if taken := sorted(compared.keys() & {RANDOM, ACTIVE, KNN, EASE, UNTRAINED, CB2CF}):
        raise UserError(f"compare={taken}: there are rows of that name already, choose another")
    new = catalogue.rows(config.split)
    song_P, user_P = held_out_listeners(catalogue, new)
    if not len(song_P):
        raise UserError(
            f"{config.data}: no {config.split} song has a held-out listener, so there is nothing to evaluate"
        )
    check_fitted_on_others(config.rank, config.split)
    boundary = None
    if config.boundary:
        boundary = boundary_vectors(config.boundary, np.arange(catalogue.n_songs), config.data, config.features)
    listening = listening_of(config, catalogue)
    ranker = ranker_of(config, catalogue, trained["FirstPlay"], boundary, listening)
    known = read_truth(config.truth, catalogue) if config.truth else logged(catalogue)
    with scratch(config.out) as aside, writing(config.out, KIND, {"options": recorded(config)}) as folder:
        targeting = targeting_for(listening, trained["FirstPlay"], config.targeting, boundary, ranker, aside)
        listeners = np.searchsorted(new, song_P), user_P
        metrics, drawn = measure(config, catalogue, targeting, trained, compared, listeners, boundary, known)
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n")
        write_report(folder / "report.html", metrics, drawn)
        (folder / "genre_maps.svg").write_text(genre_maps_svg(drawn["song_map"], metrics["genres"]), encoding="utf-8")
    if run is not None:
        track(run, config, metrics)
    print(table(metrics))
    print(f"report: {config.out}/report.html; all figures: {config.out}/metrics.json")


def measure(
    config: EvaluateConfig,
    catalogue: Catalogue,
    targeting: Targeting,
    trained: dict[str, SongIndex],
    compared: dict[str, SongIndex],
    listeners: tuple[IntArray, IntArray],
    boundary: Boundary | None,
    known: pl.DataFrame,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All figures, and the data of the report's pictures, in which those `compared` are not.

    `targeting` is of the full model, `boundary` of all songs, `known` are outcomes.
    """
    new, listening, ranker = catalogue.rows(config.split), targeting.listening, targeting.ranker
    items = None if boundary is None else boundary.item_CD[new]
    facts = None if ranker is None else song_facts(ranker.source, catalogue, new)
    songs = targeting.songs(targeting.song_SD[new], new, items, facts=facts)
    spaces = songs_in_space(config, catalogue, trained)
    others = {UNTRAINED: untrained_index(spaces[WITH_GENRE], catalogue.rows("warm"))} | compared
    others |= {name: index for name, index in trained.items() if name != "FirstPlay"}
    by_ease, ease = ease_audience(config, catalogue, spaces[WITH_GENRE], listening, new)
    candidates = None if ranker is None else targeting.candidates(songs, ranker.depth)
    found = find_all(config, targeting, songs, others, new, by_ease, candidates)
    metrics: dict[str, Any] = {
        "catalogue": catalogue.manifest["counts"],
        "split": config.split,
        "new_songs": len(new),
        "new_songs_with_a_listener": len(np.unique(listeners[0])),
        **compare(found, listeners, first_genre(catalogue)[new], listening.songs_U, config),
        "ridge_to_ease": ease,
        "outcomes": outcome_rates(found, known, source_of(config), new, config.seed),
        "retrieval": figures.audio_text(config.features, catalogue, config.split),
        "genres": figures.genre_grouping(spaces, catalogue, config.split, config.seed),
    }
    if candidates is not None:
        metrics["candidates"] = ceilings(candidates, listeners)
    drawn = {"song_map": figures.song_map(without(spaces, WITH_GENRE), catalogue, config.seed)}
    if boundary is not None:
        of_boundary, drawn["boundary"] = boundary_figures(config, catalogue, boundary, targeting, songs, known)
        metrics |= of_boundary
    return metrics, drawn


def boundary_figures(
    config: EvaluateConfig,
    catalogue: Catalogue,
    boundary: Boundary,
    targeting: Targeting,
    songs: Songs,
    known: pl.DataFrame,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the boundary and of the gate, and the data of their picture; arguments as in `measure`."""
    new, margin, memory_mb = catalogue.rows(config.split), config.targeting.margin, config.targeting.memory_mb
    of_new = replace(boundary, item_CD=boundary.item_CD[new])
    open_share_U = figures.open_shares(of_new, memory_mb, margin)
    found = {
        "boundary": figures.boundary_summary(open_share_U, catalogue),
        "gate": gate_figures(boundary, new, catalogue.rows("cold_val"), known, source_of(config), margin),
        "reach": reach_figures(boundary, new, songs, known, targeting, margin) if config.truth else {},
    }
    histograms = figures.boundary_histogram(of_new, open_share_U, memory_mb, seed=config.seed)
    return found, histograms | {"gate": margin}


def source_of(config: EvaluateConfig) -> str:
    """Where outcomes are from, in words."""
    return "truth" if config.truth else "logged plays"


def check_fitted_on_others(rank: str | None, split: str) -> None:
    """Refuse a ranker that was fitted on the very songs that are to be evaluated.

    Raises:
        UserError: it was.
    """
    if rank is not None and read_ranker(Path(rank))["fitted_on"] == split:
        raise UserError(f"{rank} was fitted on the {split} songs: it cannot be evaluated on them")


def without(spaces: dict[str, FloatArray], name: str) -> dict[str, FloatArray]:
    """All spaces but one: a map of vectors that hold the genre would draw what it was given."""
    return {key: vectors for key, vectors in spaces.items() if key != name}


def untrained_index(vectors_SD: FloatArray, known: IntArray) -> SongIndex:
    """An index of vectors that no model has made, to be targeted as a trained one is."""
    return SongIndex({}, build_index(vectors_SD[known]), known, vectors_SD)


def find_all(
    config: EvaluateConfig,
    targeting: Targeting,
    songs: Songs,
    others: dict[str, SongIndex],
    new: IntArray,
    by_ease: dict[str, Audience],
    candidates: Candidates | None = None,
) -> dict[str, Audience]:
    """The audience of every new song by every method, at the largest budget; `candidates` are the ranker's.

    `targeting` and `songs` are of the full model; `others` are targeted like it, and one of them is untrained.
    """
    listening, margin = targeting.listening, config.targeting.margin
    budget = min(max(config.budgets), listening.n_users)
    found = {
        RANDOM: baselines.random_users(len(new), listening.n_users, budget, config.seed),
        ACTIVE: baselines.most_active_users(listening.songs_U, len(new), budget),
        KNN: baselines.content_knn(others[UNTRAINED], targeting, new, budget),
        **by_ease,
    }
    for name, index in others.items():
        other = targeting_on(index, targeting)
        found[name] = other.audience(other.songs(index.vectors[new], new), "i2i2u", budget)
    found[OURS] = targeting.audience(songs, "i2i2u", budget)
    found[TASTE] = targeting.audience(songs, "taste", budget)
    found[CAT] = targeting.audience(songs, "cat", budget)
    found["FirstPlay I2I2U ∪ CAT"] = union(found[OURS], found[CAT], budget)
    found["FirstPlay I2I2U ∪ taste"] = union(found[OURS], found[TASTE], budget)
    if targeting.ranker is not None and candidates is not None:
        found[RANKED] = targeting.ranker.audience(targeting, songs, candidates, budget)
    if targeting.boundary_U is not None:
        found["FirstPlay I2I2U, gated"] = targeting.audience(songs, "i2i2u", budget, gate=True, margin=margin)
        found["FirstPlay U2I, no boundary"] = unbounded(targeting).audience(songs, "boundary", budget, margin=-np.inf)
        found["FirstPlay U2I boundary"] = targeting.audience(songs, "boundary", budget, margin=margin)
    return found


def ease_audience(
    config: EvaluateConfig, catalogue: Catalogue, content_SD: FloatArray, listening: Listening, new: IntArray
) -> tuple[dict[str, Audience], dict[str, Any]]:
    """Audiences by ridge → EASE, and its settings, which the validation songs chose; none where it is left out."""
    warm, held = catalogue.rows("warm"), catalogue.rows("cold_val")
    if len(warm) > config.ease_songs:
        print(f"{EASE} is left out: {len(warm):,} known songs are more than ease_songs={config.ease_songs}")
        return {}, {}
    if isinstance(listening, SparkListening):
        print(f"{EASE} is left out: engine=spark has no matrix of all plays")
        return {}, {}
    plays_UW, memory_mb = listening.known_US[:, warm].astype(bool).astype(np.float32), config.targeting.memory_mb
    song_P, user_P = held_out_listeners(catalogue, held)
    listeners, middle = (np.searchsorted(held, song_P), user_P), config.budgets[len(config.budgets) // 2]
    chosen = ease.choose(plays_UW, content_SD[warm], content_SD[held], listeners, middle, memory_mb)
    options = {name: one for name, one in chosen.items() if name != "power"}
    map_DW = ease.ease_map(plays_UW, content_SD[warm], **options)
    budget = min(max(config.budgets), catalogue.n_users)
    return {EASE: ease.audience(plays_UW, map_DW, content_SD[new], budget, chosen["power"], memory_mb)}, chosen


def songs_in_space(config: EvaluateConfig, catalogue: Catalogue, trained: dict[str, SongIndex]) -> dict[str, AnyArray]:
    """Song vectors by name: untrained ones without (where there are other fields) and with the genre, then trained."""
    fields, warm = read_fields(catalogue, config.features, [], min_count=1), catalogue.rows("warm")
    others = [name for name in fields.codes if name != "genres"]
    spaces = {}
    if fields.dense or others:
        codes = {name: fields.codes[name] for name in others}
        bare = SongFields(fields.dense, codes, {name: fields.vocabulary[name] for name in others})
        spaces["content, no genre"] = baselines.content_vectors(bare, warm)
    spaces[WITH_GENRE] = baselines.content_vectors(fields, warm)
    return spaces | {name: index.vectors for name, index in trained.items()}


def track(run: Any, config: EvaluateConfig, metrics: dict[str, Any]) -> None:
    """The comparison as a table in W&B, its figures to compare runs by, and the report."""
    import wandb

    used(
        run,
        config.data,
        config.index,
        config.cb2cf,
        *config.compare.values(),
        config.features,
        config.boundary,
        config.rank,
    )
    made(run, config.out, config.logger.upload)
    rows = [{key: one for key, one in row.items() if not isinstance(one, list)} for row in metrics["audience"]]
    log_table(run, "methods", pl.DataFrame(rows))
    run.log({"report": wandb.Html(f"{config.out}/report.html", inject=False)})
    summary = {f"{row['method']}/{key}": one for row in rows for key, one in row.items() if isinstance(one, float)}
    run.summary.update(summary)


def table(metrics: dict[str, Any]) -> str:
    """The comparison as the screen shows it: listeners found, and the favourite rate where outcomes are known."""
    rows = metrics["audience"]
    keys = [key for key in rows[0] if key.startswith(("target_users_found", "recall")) and not key.endswith("ci95")]
    heads = [key.replace("target_users_found", "found") for key in keys]
    rates = {row["method"]: row["favourite_rate"] for row in (metrics["outcomes"] or {}).get("rows", ())}
    heads += ["favourite rate"] if rates else []
    lines = [f"{'method':<28}" + "".join(f"{head:>{len(head) + 3}}" for head in heads)]
    for row in rows:
        values = [row[key] for key in keys] + ([rates.get(row["method"])] if rates else [])
        texts = ("" if one is None else f"{one:,}" if isinstance(one, int) else f"{one:.4f}" for one in values)
        cells = (f"{text:>{len(head) + 3}}" for text, head in zip(texts, heads, strict=True))
        lines.append(f"{row['method']:<28}" + "".join(cells))
    return "\n".join(lines)
