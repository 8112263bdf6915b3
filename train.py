"""Train one of the tasks. A run found in out= goes on where it stopped.

python train.py text     corpus=LYRICS.jsonl out=RUN                   (a character BERT; then text.model=RUN/model)
python train.py clip     data=CATALOGUE out=RUN
python train.py i2i      data=CATALOGUE features=FEATURES out=RUN      (objective.bcl_weight=0: CB2CF)
python train.py boundary data=CATALOGUE features=FEATURES out=RUN

torchrun --nproc-per-node 8 train.py i2i data=… out=… trainer.devices=8      (several GPUs)
python train.py i2i --config configs/i2i.yaml data=… out=…                   (options from a file)
python train.py i2i --help                                                   (every option)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.load import as_dict, command
from configs.schema import BoundaryConfig, ClipConfig, CorpusConfig, I2IConfig
from pipeline.fit import Built, fit
from pipeline.training import boundary_parts, clip_parts, i2i_parts


def train_text(config: CorpusConfig) -> None:
    """A BERT for a script that the packaged one cannot read; best checkpoint by hidden tokens of held-out documents."""
    from datamodules.corpus import CorpusDataModule, character_tokenizer
    from lightning_modules.masked_lm import MaskedLMModule
    from pipeline.runs import open_run, read_vocabulary
    from pipeline.tracking import first_rank
    from pipeline.vectors import restore

    def build() -> Built:
        same = {name: getattr(config, name) for name in ("max_tokens", "min_count", "batch_size", "seed")}
        data = CorpusDataModule(config.corpus, list(config.fields), workers=config.trainer.workers, **same)
        options = as_dict(config.model) | as_dict(config.optim)
        module = MaskedLMModule(len(data.tokenizer), config.max_tokens, **options)
        return module, data, [], {"text": {"characters": data.characters}}

    fit("text", config, build, monitor="val/accuracy")
    model = Path(config.out) / "model"
    if first_rank() and not model.exists():
        run, aside = open_run(config.out, "text"), model.with_suffix(".part")
        restore(MaskedLMModule, run).model.bert.save_pretrained(aside)
        characters = read_vocabulary(run.folder, "text")["characters"]
        character_tokenizer(characters, config.max_tokens).save_pretrained(aside)
        aside.rename(model)


def train_clip(config: ClipConfig) -> None:
    """Audio-text pretraining; best checkpoint by text→audio recall@10 on the cold validation songs."""
    from callbacks.index_recall import IndexRecall
    from callbacks.pictures import Pictures

    def build() -> Built:
        recall = IndexRecall(1, 5, 10, both_ways=True)
        return *clip_parts(config), [recall, Pictures(recall, {0: "audio", 1: "text"})], {}

    if config.trainer.accumulate > 1 and not config.objective.micro_batch:
        print(
            f"warning: trainer.accumulate={config.trainer.accumulate} adds no negatives: each batch has a loss of its "
            "own. For one loss over a larger batch raise batch_size and set objective.micro_batch.",
            file=sys.stderr,
        )
    fit("clip", config, build, monitor="val/recall@10")


def train_i2i(config: I2IConfig) -> None:
    """Song encoder; best checkpoint by how well cold validation songs and their listeners find each other."""
    from callbacks.audience_recall import AudienceRecall
    from callbacks.correlation import FeatureCorrelation
    from callbacks.pictures import Pictures

    def build() -> Built:
        module, data, vocabulary = i2i_parts(config)
        recall = AudienceRecall(config.recall_k, config.recall_users)
        callbacks = [FeatureCorrelation(), recall, Pictures(recall, {0: "known song", 1: "new song"})]
        return module, data, callbacks, vocabulary

    fit("i2i", config, build, monitor="val/audience")


def train_boundary(config: BoundaryConfig) -> None:
    """User, item and boundary towers; best checkpoint by recall of cold validation songs for their listeners."""
    from callbacks.index_recall import IndexRecall
    from callbacks.pictures import Pictures

    def build() -> Built:
        module, data, vocabulary = boundary_parts(config)
        recall = IndexRecall(config.recall_k)
        return module, data, [recall, Pictures(recall, {0: "new song"})], vocabulary

    fit("boundary", config, build, monitor=f"val/recall@{config.recall_k}")


TASKS: dict[str, tuple[Callable[[Any], None], type]] = {
    "text": (train_text, CorpusConfig),
    "clip": (train_clip, ClipConfig),
    "i2i": (train_i2i, I2IConfig),
    "boundary": (train_boundary, BoundaryConfig),
}


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
        run, schema = TASKS[task]
        command(run, schema, __doc__ or "", sys.argv[2:])


if __name__ == "__main__":
    main()
