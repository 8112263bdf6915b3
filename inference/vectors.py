"""Song, user and boundary vectors from trained runs, for index, audience and evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.runs import Run, open_run, read_vocabulary
from configs.errors import UserError
from data.arrays import FloatArray, IntArray
from data.fields import SongFields


def data_options(run: Run, data: str | None, features: str | None) -> dict[str, Any]:
    """Arguments of a CatalogueDataModule with the run's fields, on its own data or on the given folders."""
    return {
        "data": data or run.config["data"],
        "features": features or run.config["features"],
        "use": list(run.config["fields"]["use"]),
        "min_count": run.config["fields"]["min_count"],
        "vocabulary": read_vocabulary(run.folder),
    }


def check_fields(run: Run, fields: SongFields, folder: str) -> None:
    """Raise UserError unless the songs have the dense fields that the run was trained on, in their widths."""
    widths, trained = fields.dense_dims, run.hparams["dense_dims"]
    wrong = [f"{name} {widths.get(name, 'missing')} (run: {n})" for name, n in trained.items() if widths.get(name) != n]
    if wrong:
        raise UserError(f"{folder} has other song fields than {run.folder} was trained on: {', '.join(wrong)}")


def restore(module: type[Any], run: Run) -> Any:
    """A run's LightningModule with its best weights, ready to predict.

    Raises:
        UserError: a published encoder that it needs cannot be loaded, or the checkpoint does not fit.
    """
    try:
        return restored(module, run.hparams, run.weights)
    except KeyError as error:
        raise UserError(f"{run.folder}: the checkpoint cannot be used here: it lacks the option {error}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{run.folder}: the checkpoint cannot be used here: {str(error).splitlines()[0]}") from error


def restored(module: type[Any], hparams: dict[str, Any], weights: dict[str, Any]) -> Any:
    """A LightningModule with its weights, ready to predict."""
    made = module(**hparams)
    made.load_state_dict(weights)
    return made.eval()


def predict(module: Any, loader: Any) -> dict[str, Any]:
    """Run `Trainer.predict` on one device and join the batches by song or user number."""
    import lightning as L
    import torch

    trainer = L.Trainer(
        devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False, inference_mode=True
    )
    batches: Any = trainer.predict(module, loader)
    return {key: torch.cat([batch[key] for batch in batches]).float().numpy() for key in batches[0] if key != "id"}


def encode_songs(
    folder: str | Path, data: str | None = None, features: str | None = None, hidden: Sequence[str] = ()
) -> tuple[Run, dict[str, FloatArray]]:
    """`vector` (songs, D) and `item_bias` (songs,) of all songs of a catalogue, without the `hidden` fields."""
    from datamodules.catalogue import CatalogueDataModule
    from datamodules.i2i import I2IDataModule
    from lightning_modules.i2i import I2IModule

    run = open_run(folder, "i2i")
    options = data_options(run, data, features)
    source = I2IDataModule(CatalogueDataModule(**options), known=read_vocabulary(run.folder, "known")["song_id"])
    check_fields(run, source.fields, options["features"] or options["data"])
    source.fields = source.fields.without(hidden)
    module = restore(I2IModule, run)
    return run, predict(module, source.songs_loader(np.arange(source.catalogue.n_songs)))


@dataclass
class Boundary:
    """U2I vectors: items (C, D) of the asked songs, users (U, D), and each user's boundary score (U,)."""

    run: Run
    item_CD: FloatArray
    user_UD: FloatArray
    boundary_U: FloatArray

    def margin(self, at_N: IntArray, user_N: IntArray) -> FloatArray:
        """⟨u, i⟩ − ⟨u, b⟩ of N pairs of a song's place among the asked ones and a user, (N,)."""
        score_N: FloatArray = np.einsum("nd,nd->n", self.item_CD[at_N], self.user_UD[user_N])
        return score_N - self.boundary_U[user_N]


def boundary_vectors(
    folder: str | Path, songs: IntArray, data: str | None = None, features: str | None = None, users: bool = True
) -> Boundary:
    """Score parts of the boundary model for some songs, and for all users, or for none."""
    from datamodules.boundary import BoundaryDataModule
    from datamodules.catalogue import CatalogueDataModule
    from lightning_modules.boundary import BoundaryModule

    run = open_run(folder, "boundary")
    options = data_options(run, data, features)
    source = BoundaryDataModule(
        CatalogueDataModule(**options),
        profile_vocabulary=read_vocabulary(run.folder, "users"),
        history=run.config["model"]["history"],
        positives=run.config["objective"]["positives"],
    )
    check_fields(run, source.fields, options["features"] or options["data"])
    module = restore(BoundaryModule, run)
    items = predict(module, source.songs_loader(songs))["vector"]
    none = np.zeros((0, items.shape[1]), dtype=np.float32)
    of_users = {"vector": none, "boundary": none[:, 0]}
    if users:
        of_users = predict(module, source.users_loader(np.arange(source.catalogue.n_users)))
    if not all(np.isfinite(one).all() for one in (items, *of_users.values())):
        raise UserError(
            f"{run.folder} makes vectors with NaN or infinite values: train it again, with a lower optim.lr"
        )
    return Boundary(run, items, of_users["vector"], of_users["boundary"])
