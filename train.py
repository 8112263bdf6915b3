"""Train one of the tasks. A run found in out= goes on where it stopped.

python train.py text     corpus=LYRICS.jsonl out=RUN                   (a character BERT; then text.model=RUN/model)
python train.py clip     data=CATALOGUE out=RUN
python train.py i2i      data=CATALOGUE features=FEATURES out=RUN      (objective.bcl_weight=0: CB2CF)
python train.py boundary data=CATALOGUE features=FEATURES out=RUN
python train.py rank     data=CATALOGUE i2i=RUN boundary=RUN out=RUN   (orders the candidates of all channels)

python train.py i2i data=… out=RUN search=20         (20 trainings; the best is kept; i2i and boundary)
python train.py i2i data=TODAY out=RUN start=YESTERDAY trainer.epochs=1      (from an earlier run's weights; not text)
torchrun --nproc-per-node 8 train.py i2i data=… out=… trainer.devices=8      (several GPUs)
python train.py i2i --config configs/i2i.yaml data=… out=…                   (options from a file)
python train.py i2i --help                                                   (every option)
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from configs.load import command, given
from configs.ranking import RankConfig
from configs.training import BoundaryConfig, ClipConfig, CorpusConfig, I2IConfig

TASKS: dict[str, type] = {
    "text": CorpusConfig, "clip": ClipConfig, "i2i": I2IConfig, "boundary": BoundaryConfig, "rank": RankConfig
}  # fmt: skip


def train(task: str, config: Any, given: Collection[str] = ()) -> None:
    """Run one of TASKS; a search leaves the `given` options as they are."""
    from training import ranking, tasks  # here: --help and wrong options answer at once

    run = ranking.train_rank if task == "rank" else getattr(tasks, f"train_{task}")
    if getattr(config, "search", 0):
        from training.search import search

        search(task, config, given, run)
    else:
        run(config)


def main() -> None:
    """`python train.py TASK key=value …`"""
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task in ("-h", "--help"):
        print(__doc__)
    elif task not in TASKS:
        got = f"got {task or 'nothing'}; see train.py --help"
        print(f"error: name a task first: {' | '.join(TASKS)} ({got})", file=sys.stderr)
        raise SystemExit(2)
    else:
        schema, argv = TASKS[task], sys.argv[2:]
        command(lambda config: train(task, config, given(schema, argv)), schema, __doc__ or "", argv)


if __name__ == "__main__":
    main()
