"""Options of small trainings, and how lists of options are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Sequence

MODEL = [
    "batch_size=64", "fields.block=4", "model.field_dim=8", "model.hidden=16", "model.dim=8", "trainer.accelerator=cpu",
    "optim.lr=1e-2",
]  # fmt: skip
I2I = [*MODEL, "bcl_batch_size=32", "objective.negatives=32", "objective.users=32"]


def listed(names: Sequence[str]) -> str:
    return json.dumps(names, ensure_ascii=False)
