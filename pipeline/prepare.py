"""Validate a dataset, split it into known and new songs, mine verified song pairs, decode audio.

    python -m pipeline.prepare source=DATASET out=CATALOGUE
    python -m pipeline.prepare source=lfm2k out=CATALOGUE format=lfm2k

Reads a dataset folder (docs/data.md) and writes the catalogue folder that every later command takes. What is
skipped is counted and named, here and in manifest.json. Nothing of a new song's plays reaches the training tables, nor
do the tags that its own held-out listeners gave it.
"""

from __future__ import annotations

from configs.data import PrepareConfig
from configs.load import command


def main(config: PrepareConfig) -> None:
    """Run the command (see the module's docstring)."""
    from data.preparation import prepare  # here: --help and wrong options answer at once

    prepare(config)


if __name__ == "__main__":
    command(main, PrepareConfig, __doc__)
