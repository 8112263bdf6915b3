"""Pictures of a training for loggers that take them: which features are alike, where songs lie, recall over K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

from callbacks.index_recall import IndexRecall
from data.catalogue import first_genre
from retrieval.index import unit_rows
from retrieval.plane import project

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
NAMED = 60  # features at most whose names stand beside the heat map
GENRES = 10  # that have a colour of their own
MARKERS = "ox^"


class Pictures(L.Callback):
    """The feature correlation at the start of each epoch; at the end a map of the songs, and recall over K.

    Without a logger that takes images nothing is drawn. Place it after the callbacks that it draws from.

    Args:
        recall: has curves and a sample of vectors of the last validation.
        songs: which validation loaders give songs, and what their vectors are.
    """

    def __init__(self, recall: IndexRecall, songs: dict[int, str]) -> None:
        self.recall, self.songs = recall, songs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the matrix that this epoch groups features by."""
        if hasattr(pl_module, "correlation") and takes_images(trainer):
            module: Any = pl_module
            names, fields = module.feature_names, module.model.embedding.field_of
            fields = fields if len(names) == len(fields) else list(range(len(names)))
            log(trainer, "features/correlation", heat_map(module.correlation.cpu().numpy(), names, fields))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the songs and recall curves of the last validation."""
        if not takes_images(trainer) or not self.recall.sample:
            return
        ids, vectors = zip(*(self.recall.sample[loader] for loader in self.songs), strict=True)
        kinds = np.repeat(list(self.songs.values()), [len(one) for one in ids])
        genre = first_genre(trainer.datamodule.catalogue)[np.concatenate(ids)]  # type: ignore[attr-defined]
        log(trainer, "songs/map", song_map(project(unit_rows(np.concatenate(vectors)), seed=0), genre, kinds))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for name, curve in self.recall.curves.items():
                    log_curve(logger, name, curve, trainer.global_step)


def takes_images(trainer: L.Trainer) -> list[Any]:
    """Loggers that accept images, on rank 0 alone."""
    return [logger for logger in trainer.loggers if hasattr(logger, "log_image")] if trainer.is_global_zero else []


def log(trainer: L.Trainer, name: str, picture: Figure) -> None:
    """Log a figure with all loggers that accept images."""
    for logger in takes_images(trainer):
        logger.log_image(name, [picture], step=trainer.global_step)


def log_curve(logger: WandbLogger, name: str, curve: Array, step: int) -> None:
    """A line over 1, 2, … K, which W&B draws once for all runs that are looked at."""
    import wandb

    table = wandb.Table(columns=["K", "recall"], data=[[k, float(value)] for k, value in enumerate(curve, start=1)])
    drawn: Any = {f"{name}_curve": wandb.plot.line(table, "K", "recall", title=f"{name}@K, last epoch")}
    logger.log_metrics(drawn, step)


def heat_map(correlation_FF: Array, names: Sequence[str], field_of: Sequence[int]) -> Figure:
    """Linear CKA of all pairs of features; lines part the fields, whose blocks are features of their own."""
    from matplotlib.figure import Figure

    n, few = len(names), len(names) <= 16
    side = min(max(4.5, 0.3 * n + 2), 16)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(correlation_FF, vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(shown, ax=axes, shrink=0.7, label="linear CKA")
    places = range(n) if n <= NAMED else [list(field_of).index(field) for field in sorted(set(field_of))]
    labels = [names[place] for place in places]
    axes.set_xticks(places, labels, rotation=90, fontsize=8)
    axes.set_yticks(places, labels, fontsize=8)
    for edge in np.flatnonzero(np.diff(field_of)) + 0.5:
        axes.axhline(edge, color="white", linewidth=1)
        axes.axvline(edge, color="white", linewidth=1)
    for row, column in np.ndindex(n, n) if few else ():
        value = correlation_FF[row, column]
        ink = "black" if value > 0.6 else "white"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=ink)
    return figure


def song_map(xy_N2: Array, genre_N: Array, kind_N: Array) -> Figure:
    """Songs in two dimensions: a colour for each of the most frequent genres, a marker for each kind of vector."""
    from matplotlib.colors import TABLEAU_COLORS
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xticks=[], yticks=[], title=f"{len(xy_N2):,} vectors by t-SNE")
    axes.set_aspect("equal", adjustable="datalim")
    names, count = np.unique(genre_N[genre_N != ""], return_counts=True)
    colour = dict(zip(names[np.argsort(-count, kind="stable")][:GENRES], TABLEAU_COLORS.values(), strict=False))
    for kind, marker in zip(dict.fromkeys(kind_N), MARKERS, strict=False):
        at = kind_N == kind
        shades = [colour.get(one, "lightgrey") for one in genre_N[at]]
        axes.scatter(xy_N2[at, 0], xy_N2[at, 1], c=shades, marker=marker, s=14)
        axes.scatter([], [], c="grey", marker=marker, label=kind)
    for name, shade in colour.items():
        axes.scatter([], [], color=shade, marker="s", label=name)
    if not set(genre_N) <= set(colour):
        axes.scatter([], [], c="lightgrey", marker="s", label="other or no genre")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
