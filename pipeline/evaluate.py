"""Offline evaluation on new songs' held-out plays, beside baselines in the same run.

    python -m pipeline.evaluate data=CATALOGUE index=INDEX cb2cf=INDEX features=FEATURES boundary=RUN out=DIR

`compare={article: INDEX, …}` adds a row for each further i2i model, `rank=RUN` one for the ranked candidates. Writes
metrics.json, report.html and genre_maps.svg. `engine=spark` looks for users as pipeline.audience does. No training,
index or audience reads the held-out plays of test songs. The demo world's truth.parquet is read here only.
"""

from __future__ import annotations

from configs.load import command
from configs.targeting import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    """Run the command (see the module's docstring)."""
    from evaluation.evaluation import evaluate  # here: --help and wrong options answer at once

    evaluate(config)


if __name__ == "__main__":
    command(main, EvaluateConfig, __doc__)
