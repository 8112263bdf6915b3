"""How vectors of sound and of words are best joined, where a text searches new songs: by labels that they have.

    python -m benchmarks.quality.text_search data=runs/demo/catalogue features=runs/demo/features

A query is a label of the columns `labels=` that at least `least=` of the songs have; a song is right if it has the
label. Figures are means over labels: the average precision (`map`), and the share of songs without sound among the
first ten (`silent`). First all songs have what they have; then, in `draws` draws, a random third of them loses its
sound and another its words ("thirds").
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import write_json
from benchmarks.table import markdown
from configs.errors import UserError
from configs.load import command
from configs.options import REQUIRED, at_least, opt
from data.arrays import BoolArray, FloatArray, IntArray
from data.catalogue import Catalogue, read_features
from inference.zeroshot import label_vectors, own_labels, run_of
from retrieval.index import unit_rows
from retrieval.queries import centre, centred, word_vectors

FIRST = 10
FIGURES = ["map", "silent", "map in thirds", "silent in thirds"]


@dataclass
class TextSearchConfig:
    """Options of this benchmark."""

    data: str = opt(REQUIRED, "catalogue folder")
    features: str = opt(REQUIRED, "feature folder of a CLIP run (python -m pipeline.embed clip=…)")
    labels: list[str] = opt(["genres", "tags"], "columns whose values are the queries")
    least: int = opt(4, "songs that must have a label")
    draws: int = opt(5, "draws of the songs that lose their sound or words")
    out: str = opt("runs/text_search.json", "JSON file to write")


def main(config: TextSearchConfig) -> None:
    """Run the command (see the module's docstring)."""
    at_least(config, 1, "least", "draws")
    catalogue = Catalogue.read(config.data)
    fields = read_features(Path(config.features), catalogue.n_songs)
    both = [np.asarray(fields[name]) for name in ("clip_audio", "clip_text") if name in fields]
    if len(both) < 2:
        raise UserError(f"features={config.features} has no clip_audio and clip_text: embed with clip=RUN")
    centres = np.stack([centre(field[catalogue.rows("warm")]) for field in both])
    found = {}
    for part in ("cold_val", "cold_test"):
        songs = catalogue.rows(part)
        labels, right_LS = labelled(catalogue, songs, config.labels, config.least)
        words_LD = label_vectors(run_of(config.features), labels, ["{}"], catalogue.folder / "text_cache")
        rows = measured(words_LD, right_LS, (both[0][songs], both[1][songs]), centres, config.draws)
        found[part] = {"songs": len(songs), "labels": len(labels), "rows": rows}
        print(f"\n{part}: {len(songs)} songs, {len(labels)} labels\n\n{markdown('compared by', [rows], FIGURES)}")
    write_json(config.out, found)


def labelled(catalogue: Catalogue, songs: IntArray, names: list[str], least: int) -> tuple[list[str], BoolArray]:
    """Labels in the named columns that enough of the songs have, and which have them, (L, S).

    Raises:
        UserError: there is none.
    """
    columns = [own_labels(catalogue, name) for name in names]
    own = [{label for column in columns for label in column[song]} for song in songs]
    every = sorted(set().union(*own)) if own else []
    labels = [label for label in every if sum(label in one for one in own) >= least]
    if not labels:
        raise UserError(f"labels={names}: none that least={least} new songs have")
    return labels, np.array([[label in one for one in own] for label in labels])


def measured(
    words_LD: FloatArray, right_LS: BoolArray, both: tuple[FloatArray, FloatArray], centres: FloatArray, draws: int
) -> list[dict[str, Any]]:
    """Figures of every way to join sound and words."""
    whole = ways(words_LD, both, centres)
    rows = {name: figures(scores_LS, right_LS, both[0]) for name, scores_LS in whole.items()}
    thirds: dict[str, list[dict[str, float]]] = {name: [] for name in whole}
    for draw in range(draws):
        lost_S = np.random.default_rng(draw).integers(0, 3, right_LS.shape[1])
        left = [np.where((lost_S == at)[:, None], np.nan, field_SD) for at, field_SD in enumerate(both)]
        for name, scores_LS in ways(words_LD, (left[0], left[1]), centres).items():
            thirds[name].append(figures(scores_LS, right_LS, left[0]))
    for name, of_draws in thirds.items():
        for key in ("map", "silent"):
            rows[name][f"{key} in thirds"] = float(np.mean([one[key] for one in of_draws]))
    chance = {"compared by": "chance (share of right songs)", "map": float(right_LS.mean())}
    return [chance, *({"compared by": name} | row for name, row in rows.items())]


def ways(words_LD: FloatArray, both: tuple[FloatArray, FloatArray], centres: FloatArray) -> dict[str, FloatArray]:
    """Scores of songs for queries by each way to join sound and words, (L, S); what a song lacks scores 0."""
    units = [unit_rows(field_SD) for field_SD in both]
    plain_SD = np.nan_to_num(np.stack(units)).sum(axis=0)
    plain_SD /= np.maximum(sum(np.isfinite(one).all(axis=1) for one in units), 1)[:, None]
    joined_SD = np.nan_to_num(word_vectors(both, centres))
    asked_LD = centred(words_LD, centres[1])
    return {
        "sound alone": words_LD @ np.nan_to_num(units[0]).T,
        "words alone": words_LD @ np.nan_to_num(units[1]).T,
        "mean of both": words_LD @ plain_SD.T,
        "mean of both, length 1": words_LD @ np.nan_to_num(unit_rows(plain_SD)).T,
        "mean of both, each centred": asked_LD @ joined_SD.T,
        "mean of both, each centred, length 1": asked_LD @ np.nan_to_num(unit_rows(joined_SD)).T,
    }


def figures(scores_LS: FloatArray, right_LS: BoolArray, sound_SD: FloatArray) -> dict[str, float]:
    """Mean average precision over labels, and the share of songs without sound among the first ten."""
    order_LS = np.argsort(-scores_LS, axis=1, kind="stable")
    ranked_LS = np.take_along_axis(right_LS, order_LS, axis=1)
    precision_LS = np.cumsum(ranked_LS, axis=1) / np.arange(1, ranked_LS.shape[1] + 1)
    average_L = (precision_LS * ranked_LS).sum(axis=1) / ranked_LS.sum(axis=1)
    silent_S = np.asarray(np.isnan(sound_SD).any(axis=1))
    return {"map": float(average_L.mean()), "silent": float(silent_S[order_LS[:, :FIRST]].mean())}


if __name__ == "__main__":
    command(main, TextSearchConfig, __doc__)
