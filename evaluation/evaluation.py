"""Evaluate on new songs' held-out plays, beside baselines in the same run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from artifacts.folders import writing
from artifacts.tracking import log_table, made, tracked, used
from configs.checks import check_targeting
from configs.errors import UserError
from configs.load import recorded
from configs.targeting import EvaluateConfig
from data.arrays import AnyArray, IntArray
from data.catalogue import Catalogue, first_genre, held_out_listeners
from data.fields import SongFields, read_fields
from data.item_pairs.verification import listening_matrix
from evaluation import baselines, figures
from evaluation.calibration import gate_figures, reach_figures
from evaluation.comparison import compare
from evaluation.outcomes import outcome_rates, read_truth
from evaluation.report.genre_maps import genre_maps_svg
from evaluation.report.page import write_report
from inference import audience as audiences
from inference.similar import Similar
from inference.song_index import SongIndex, open_index
from inference.vectors import Boundary, boundary_vectors
from retrieval import audience as targeting
from retrieval.audience import Audience
from retrieval.boundary import users_above
from retrieval.index import build_index

KIND = "evaluation"
WITH_GENRE, CB2CF = "content, genre included", "CB2CF (λ=0)"


@tracked("evaluate")
def evaluate(config: EvaluateConfig, run: Any) -> None:
    """Run `pipeline.evaluate` (its docstring says what it reads and writes)."""
    catalogue = Catalogue.read(config.data)
    config.budgets = sorted(set(config.budgets))
    if not config.budgets or config.budgets[0] < 1:
        raise UserError(f"budgets={config.budgets}: give one or more positive numbers of users")
    check_targeting(config.targeting)
    trained = {CB2CF: open_index(config.cb2cf, catalogue)} if config.cb2cf else {}
    trained["FirstPlay"] = open_index(config.index, catalogue)
    new = catalogue.rows(config.split)
    listeners = listeners_by_position(catalogue, new)
    if not len(listeners[0]):
        raise UserError(
            f"{config.data}: no {config.split} song has a held-out listener, so there is nothing to evaluate"
        )
    held, boundary, of_held = catalogue.rows("cold_val"), None, None
    if config.boundary:  # in one go, since the users are the same
        asked = np.concatenate([new, held])
        both = boundary_vectors(config.boundary, asked, config.data, config.features)
        boundary, of_held = (replace(both, item_CD=part) for part in np.split(both.item_CD, [len(new)]))
    truth = read_truth(config.truth, catalogue) if config.truth else None
    with writing(config.out, KIND, {"options": recorded(config)}) as folder:
        listening = listening_matrix(catalogue.plays, catalogue.n_users, catalogue.n_songs)
        similar = audiences.find_similar(trained["FirstPlay"], new, listening, config.targeting)
        spaces = songs_in_space(config, catalogue, trained)
        content = content_index(spaces[WITH_GENRE], catalogue)
        found = find_all(config, content, trained, boundary, new, listening, similar)
        metrics: dict[str, Any] = {
            "catalogue": catalogue.manifest["counts"],
            "split": config.split,
            "new_songs": len(new),
            "new_songs_with_a_listener": len(np.unique(listeners[0])),
            **compare(found, listeners, first_genre(catalogue)[new], np.diff(listening.indptr), config),
            "outcomes": outcome_rates(found, truth, catalogue, new, config.seed),
            "retrieval": figures.audio_text(config.features, catalogue, config.split),
            "genres": figures.genre_grouping(spaces, catalogue, config.split, config.seed),
        }
        drawn = pictures(catalogue, spaces, config)
        if boundary is not None and of_held is not None:
            memory_mb = config.targeting.memory_mb
            open_share_U = figures.open_shares(boundary, memory_mb)
            metrics["boundary"] = figures.boundary_summary(open_share_U, catalogue)
            drawn["boundary"] = figures.boundary_histogram(boundary, open_share_U, memory_mb, seed=config.seed)
            metrics["gate"] = gate_figures(boundary, new, of_held, held, truth, catalogue)
            metrics["reach"] = reach_figures(boundary, new, similar, truth, listening, config.targeting)
        text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "metrics.json").write_text(text + "\n")
        write_report(folder / "report.html", metrics, drawn)
        (folder / "genre_maps.svg").write_text(genre_maps_svg(drawn["song_map"], metrics["genres"]), encoding="utf-8")
    if run is not None:
        track(run, config, metrics)
    print(table(metrics))
    print(f"report: {config.out}/report.html")


def find_all(
    config: EvaluateConfig,
    content: SongIndex,
    trained: dict[str, SongIndex],
    boundary: Boundary | None,
    new: IntArray,
    listening: sparse.csr_matrix,
    similar: Similar,
) -> dict[str, Audience]:
    """The audience of every new song by every method, at the largest budget.

    `content` is of untrained vectors; `trained` has the full model's index ("FirstPlay") and CB2CF's, where there is
    one; `similar` is as the full model has it.
    """
    scale = targeting.activity_scale(listening, config.targeting.activity_power)
    budget = min(max(config.budgets), listening.shape[0])

    def i2i2u(near: Similar, allowed: Any = None) -> Audience:
        return targeting.listeners_of_similar(near.weights_CS, listening, scale, budget, allowed)

    def by(one: SongIndex) -> Audience:
        return i2i2u(audiences.find_similar(one, new, listening, config.targeting))

    found = {
        "random": baselines.random_users(len(new), listening.shape[0], budget, config.seed),
        "most active users": baselines.most_active_users(listening, len(new), budget),
        "content kNN": baselines.content_knn(content, listening, new, budget),
        "content kNN, our targeting": by(content),
    }
    if CB2CF in trained:
        found[CB2CF] = by(trained[CB2CF])
    vectors = trained["FirstPlay"].vectors
    found["FirstPlay I2I2U"] = i2i2u(similar)
    found["FirstPlay CAT"] = audiences.cat(similar, listening, vectors, new, config.targeting, budget)
    found["FirstPlay I2I2U ∪ CAT"] = targeting.union(found["FirstPlay I2I2U"], found["FirstPlay CAT"], budget)
    if boundary is not None:
        allowed = audiences.allowed_users(boundary, None, config.targeting.margin)
        found["FirstPlay I2I2U, gated"] = i2i2u(similar, allowed)
        item, user = boundary.item_CD, boundary.user_UD
        found["FirstPlay U2I, no boundary"] = users_above(item, user, np.zeros(len(user)), budget, least=-np.inf)
        found["FirstPlay U2I boundary"] = users_above(item, user, boundary.boundary_U, budget, config.targeting.margin)
    return found


def content_index(vectors: AnyArray, catalogue: Catalogue) -> SongIndex:
    """An index of untrained content vectors, searched like the trained one."""
    warm = catalogue.rows("warm")
    return SongIndex({}, build_index(vectors[warm]), warm, vectors)


def listeners_by_position(catalogue: Catalogue, new: IntArray) -> tuple[IntArray, IntArray]:
    """(position in `new`, user) of every held-out listening, dislikes left out; `new` ascending."""
    song, user = held_out_listeners(catalogue, new)
    return np.searchsorted(new, song), user


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


def pictures(catalogue: Catalogue, spaces: dict[str, AnyArray], config: EvaluateConfig) -> dict[str, Any]:
    """Data of the report's pictures; vectors with the genre among them would draw what they were given."""
    shown = {name: vectors for name, vectors in spaces.items() if name != WITH_GENRE}
    return {"song_map": figures.song_map(shown, catalogue, config.seed)}


def track(run: Any, config: EvaluateConfig, metrics: dict[str, Any]) -> None:
    """The comparison as a table in W&B, its figures to compare runs by, and the report."""
    import wandb

    used(run, config.data, config.index, config.cb2cf, config.features, config.boundary)
    made(run, config.out, config.logger.upload)
    rows = [{key: one for key, one in row.items() if not isinstance(one, list)} for row in metrics["audience"]]
    log_table(run, "methods", pl.DataFrame(rows))
    run.log({"report": wandb.Html(f"{config.out}/report.html", inject=False)})
    summary = {f"{row['method']}/{key}": one for row in rows for key, one in row.items() if isinstance(one, float)}
    run.summary.update(summary)


def table(metrics: dict[str, Any]) -> str:
    """The comparison as the screen shows it."""
    rows = metrics["audience"]
    keys = [key for key in rows[0] if key.startswith(("target_users_found", "recall")) and not key.endswith("ci95")]
    lines = [f"{'method':<28}" + "".join(f"{key.replace('target_users_found', 'found'):>12}" for key in keys)]
    for row in rows:
        cells = (f"{row[key]:>12}" if isinstance(row[key], int) else f"{row[key]:>12.4f}" for key in keys)
        lines.append(f"{row['method']:<28}" + "".join(cells))
    for name in ("outcomes", "retrieval", "genres", "boundary", "gate"):
        if metrics.get(name):
            lines.append(f"{name}: {json.dumps(metrics[name], ensure_ascii=False)}")
    return "\n".join(lines)
