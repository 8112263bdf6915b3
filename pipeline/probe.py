"""How much song vectors know of a label: a linear classifier on top, tested on songs that it did not see.

    python -m pipeline.probe data=CATALOGUE features=FEATURES column=genres use=[clip_audio] out=probe.json

The label is a song's first value in `column`. Logistic regression, its strength chosen inside the training folds, is
tested in `folds` parts that never share an artist, where artists are known. Beside the vectors asked for: statistics of
the recordings (models/audio_encoder.py: mel_statistics), which need no training, and the most frequent label.
"""

from __future__ import annotations

from configs.load import command
from configs.targeting import ProbeConfig


def main(config: ProbeConfig) -> None:
    """Run the command (see the module's docstring)."""
    from evaluation.probing import probe_features  # here: --help and wrong options answer at once

    probe_features(config)


if __name__ == "__main__":
    command(main, ProbeConfig, __doc__)
