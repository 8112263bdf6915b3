"""Options out of range, or that do not go together, are refused when they are read: one line that names them."""

from __future__ import annotations

from typing import Any

import pytest

from configs.data import PrepareConfig, WorldConfig
from configs.embedding import EmbedConfig
from configs.errors import UserError
from configs.load import load
from configs.ranking import RankConfig
from configs.serving import ServingConfig
from configs.targeting import AudienceConfig, EvaluateConfig, IndexConfig, ProbeConfig, ZeroshotConfig
from configs.training import BoundaryConfig, ClipConfig, CorpusConfig, I2IConfig
from configs.waves import WavesConfig

GIVEN: dict[type, str] = {
    WorldConfig: "out=o",
    PrepareConfig: "source=s out=o",
    CorpusConfig: "corpus=c out=o",
    ClipConfig: "data=d out=o",
    I2IConfig: "data=d out=o",
    BoundaryConfig: "data=d out=o",
    RankConfig: "data=d i2i=i out=o",
    EmbedConfig: "data=d out=o",
    IndexConfig: "run=r out=o",
    AudienceConfig: "index=i out=o",
    EvaluateConfig: "data=d index=i out=o",
    ZeroshotConfig: "features=f data=d out=o",
    ProbeConfig: "data=d",
    ServingConfig: "model=m store=s",
    WavesConfig: "audience=a out=o data=d exposures=9",
}
WRONG: list[tuple[Any, str, str]] = [  # schema, options, what is said
    (WorldConfig, "songs=5 users=49", "songs=5, users=49: must be at least 50"),
    (WorldConfig, "seed=-1", "seed=-1: must be at least 0"),
    (PrepareConfig, "audio.n_mels=0", "audio.n_mels=0: must be at least 1"),
    (PrepareConfig, "audio.max_seconds=nan", "audio.max_seconds=nan: must be above 0 and finite"),
    (PrepareConfig, "split.cold_share=0", "split.cold_share=0: must be above 0 and below 1"),
    (PrepareConfig, "split.cold_share=1", "split.cold_share=1: must be above 0 and below 1"),
    (PrepareConfig, "split.cutoff=soon", "split.cutoff='soon' is not a date: write YYYY-MM-DD"),
    (PrepareConfig, "split.until=2026-13-01", "split.until='2026-13-01' is not a date"),
    (PrepareConfig, "pairs.shrinkage=nan", "pairs.shrinkage=nan: must be at least 0 and below 1e+09"),
    (PrepareConfig, "pairs.top_k=0", "pairs.top_k=0: must be at least 1"),
    (PrepareConfig, "engine=spark pairs.posterior=split_users", "split_users is for engine=local"),
    (PrepareConfig, "audio.cache=o/audio", "audio.cache=o/audio lies in out=o"),
    (CorpusConfig, "max_tokens=4", "max_tokens=4: must be at least 8"),
    (CorpusConfig, "batch_size=0", "batch_size=0: must be at least 1"),
    (CorpusConfig, "trainer.strategy=fsdp", "trainer.strategy=fsdp is for train.py clip alone"),
    (ClipConfig, "model.crops=0", "model.crops=0: must be at least 1"),
    (ClipConfig, "model.crop_seconds=0", "model.crop_seconds=0: must be above 0 and finite"),
    (ClipConfig, "text.max_tokens=2", "text.max_tokens=2: must be at least 3"),
    (ClipConfig, "text.windows=0", "text.windows=0: must be at least 1"),
    (ClipConfig, "text.variants=-1", "text.variants=-1: must be at least 0"),
    (ClipConfig, "text.keep=1.5", "text.keep=1.5: must be above 0 and at most 1"),
    (ClipConfig, "audio.frozen=false", "are of published encoders"),
    (ClipConfig, "audio.model=musicnn objective.gain_db=6", "are of audio.model=transformer"),
    (ClipConfig, "objective.gain_db=-1 objective.noise_db=-2", "gain_db=-1, objective.noise_db=-2: must be at least 0"),
    (ClipConfig, "objective.micro_batch=-1", "objective.micro_batch=-1: must be at least 0"),
    (ClipConfig, "text.last_layers=1", "text.last_layers, text.lora_rank: a frozen 'minilm' is not trained"),
    (ClipConfig, "text.model=use-multilingual text.frozen=false", "use-multilingual is not trained further"),
    (ClipConfig, "text.frozen=false text.lora_rank=-1", "text.lora_rank=-1: must be at least 0"),
    (ClipConfig, "text.frozen=false text.lora_rank=1 text.last_layers=1", "text.lora_rank: give one of them"),
    (ClipConfig, "audio.model=musicnn audio.frozen=false audio.lora_rank=4", "musicnn is trained whole or not"),
    (ClipConfig, "objective.temperature=0", "objective.temperature=0: must be above 0 and finite"),
    (I2IConfig, "trainer.strategy=fsdp", "trainer.strategy=fsdp is for train.py clip alone"),
    (I2IConfig, "optim.warmup=1", "optim.warmup=1: must be at least 0 and below 1"),
    (I2IConfig, "optim.lr=-1", "optim.lr=-1: must be at least 0 and finite"),
    (I2IConfig, "objective.history=1", "objective.history=1: half of a user's songs cannot predict the other"),
    (
        I2IConfig,
        "objective.users=0 objective.negatives=0",
        "objective.negatives=0, objective.users=0: must be at least 1",
    ),
    (I2IConfig, "recall_users=0 bcl_batch_size=0", "bcl_batch_size=0, recall_users=0: must be at least 1"),
    (I2IConfig, "objective.candidates=-1", "objective.candidates=-1: must be at least 1"),
    (I2IConfig, "objective.temperature=0", "objective.temperature=0: must be above 0 and finite"),
    (I2IConfig, "objective.listening_temperature=-1", "objective.listening_temperature=-1: must be above 0 and finite"),
    (I2IConfig, " ".join(f"objective.{part}_weight=0" for part in ("pair", "listening", "bcl")), "nothing is learnt"),
    (BoundaryConfig, "trainer.strategy=fsdp", "trainer.strategy=fsdp is for train.py clip alone"),
    (BoundaryConfig, "objective.strengths=[1,2]", "name three above 0 (played, completed, favourited)"),
    (BoundaryConfig, "model.prior_plays=-1", "model.prior_plays=-1: must be at least 0"),
    (BoundaryConfig, "trainer.accumulate=0", "trainer.accumulate=0: must be at least 1"),
    (EmbedConfig, "clip=run text.fields=[tags]", "text.* are those of the run run"),
    (IndexConfig, "recall=1.5", "recall=1.5 must be above 0 and at most 1"),
    (AudienceConfig, "mode=boundary", "missing option: boundary="),
    (AudienceConfig, "gate=true", "missing option: boundary="),
    (AudienceConfig, "since=yesterday", "since='yesterday' is not a date"),
    (AudienceConfig, "targeting.margin=inf", "targeting.margin=inf"),
    (AudienceConfig, "targeting.budget=0 targeting.seed_users=-1", "targeting.budget=0, targeting.seed_users=-1"),
    (AudienceConfig, "targeting.exploration=0.04 targeting.budget=12", "is no user: give at least 0.0416667"),
    (AudienceConfig, "engine=spark targeting.users_index=IVF,Flat", "targeting.users_index=: for engine=local"),
    (AudienceConfig, "spark.partitions=-1", "spark.partitions=-1: must be at least 0"),
    (EvaluateConfig, "budgets=[10,-1]", "give one or more positive numbers of users"),
    (ZeroshotConfig, "", "give either labels=[…] or column="),
    (ZeroshotConfig, "labels=[a] column=genres", "give either labels=[…] or column="),
    (ZeroshotConfig, "labels=[a] prompts=[song]", "each needs {} where the label goes"),
    (ZeroshotConfig, "labels=[a] top=0", "top=0: must be at least 1"),
    (ProbeConfig, "folds=1", "folds=1: must be at least 2"),
    (WavesConfig, "exposures=0", "exposures=0: must be at least 1"),
    (WavesConfig, "data=null", "give either data=CATALOGUE"),
    (WavesConfig, "rates.favourited=0.1", "give either data=CATALOGUE"),
    (WavesConfig, "data=null rates.favourited=0.1", "give favourited, completed, each above 0 and below 1"),
    (WavesConfig, "after=./o", "after=./o is out= too"),
    (WavesConfig, "outcomes=p", "outcomes= is of earlier waves"),
    (WavesConfig, "policy.stop=0.95", "policy.stop=0.95 must be below policy.widen=0.9"),
    (WavesConfig, "policy.widen=1", "policy.widen=1: must be above 0 and below 1"),
    (WavesConfig, "policy.worth.skipped=1", "no outcome is called skipped"),
    (WavesConfig, "policy.worth.completed=-1", "none less than 0"),
    (WavesConfig, "policy.size=0", "policy.size=0: must be at least 1"),
    (ServingConfig, "timeout=0", "timeout=0: must be above 0 and below 1e+06"),
    (ServingConfig, "port=65536", "port=65536: must be at least 0 and below 65536"),
    (ServingConfig, "max_upload_mb=300", "max_upload_mb=300: decoders take at most 256"),
]


@pytest.mark.parametrize(("schema", "options", "said"), WRONG, ids=lambda value: getattr(value, "__name__", value))
def test_what_cannot_be_is_refused(schema: Any, options: str, said: str) -> None:
    given = GIVEN[schema].split()
    if schema is not ZeroshotConfig:
        load(schema, given)
    with pytest.raises(UserError) as caught:
        load(schema, [*given, *options.split()])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_budgets_are_put_in_order() -> None:
    assert load(EvaluateConfig, ["data=d", "index=i", "out=o", "budgets=[50,10,50]"]).budgets == [10, 50]
