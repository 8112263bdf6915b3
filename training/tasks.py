"""The trainings text, clip, i2i and boundary, each a function of its options; training/ranking.py has the ranker's."""

from __future__ import annotations

import sys
from pathlib import Path

from artifacts.runs import open_run, read_vocabulary
from artifacts.tracking import first_rank
from callbacks.audience_recall import AudienceRecall
from callbacks.boundary_margin import BoundaryMargin
from callbacks.correlation import FeatureCorrelation
from callbacks.index_recall import IndexRecall
from callbacks.pictures import Pictures
from configs.load import as_dict
from configs.targeting import TargetingConfig
from configs.training import BoundaryConfig, ClipConfig, CorpusConfig, I2IConfig
from datamodules.masked_lm import MaskedLMDataModule, character_tokenizer
from inference.targeting import options_of
from inference.vectors import restore
from lightning_modules.masked_lm import MaskedLMModule
from training.fit import Built, fit
from training.parts import boundary_parts, clip_parts, i2i_parts
from training.start import start_run, starting


def train_text(config: CorpusConfig) -> None:
    """A BERT for a script that the packaged one cannot read; best checkpoint by hidden tokens of held-out documents."""

    def build() -> Built:
        same = {name: getattr(config, name) for name in ("max_tokens", "min_count", "batch_size", "seed")}
        data = MaskedLMDataModule(config.corpus, list(config.fields), workers=config.trainer.workers, **same)
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

    def build() -> Built:
        recall = IndexRecall(1, 5, 10, both_ways=True)
        start = start_run("clip", config)
        module, data = clip_parts(config)
        started = starting(start, module, {}, data.catalogue)
        return module, data, [*started, recall, Pictures(recall, {0: "audio", 1: "text"})], {}

    if config.trainer.accumulate > 1 and not config.objective.micro_batch:
        print(
            f"warning: trainer.accumulate={config.trainer.accumulate} adds no negatives: each batch has a loss of its "
            "own. For one loss over a larger batch raise batch_size and set objective.micro_batch.",
            file=sys.stderr,
        )
    fit("clip", config, build, monitor="val/recall@10")


def train_i2i(config: I2IConfig) -> None:
    """Song encoder; best checkpoint by how well cold validation songs and their listeners find each other, by the mode
    that will be served."""

    def build() -> Built:
        start = start_run("i2i", config)
        module, data, vocabulary = i2i_parts(config, start)
        started = starting(start, module, vocabulary, data.catalogue)
        served = options_of(TargetingConfig())
        recall = AudienceRecall(config.recall_k, config.recall_users, config.recall_mode, served)
        callbacks = [*started, FeatureCorrelation(), recall, Pictures(recall, {0: "known song", 1: "new song"})]
        return module, data, callbacks, vocabulary

    fit("i2i", config, build, monitor="val/audience")


def train_boundary(config: BoundaryConfig) -> None:
    """User, item and boundary towers; best checkpoint by `monitor`: how well margins part listeners from others."""

    def build() -> Built:
        start = start_run("boundary", config)
        module, data, vocabulary = boundary_parts(config, start)
        started = starting(start, module, vocabulary, data.catalogue)
        margin = BoundaryMargin(config.recall_k, config.objective.alpha)
        return module, data, [*started, margin, Pictures(margin, {0: "new song"})], vocabulary

    monitor = f"recall@{config.recall_k}" if config.monitor == "recall" else config.monitor
    fit("boundary", config, build, monitor=f"val/{monitor}")
