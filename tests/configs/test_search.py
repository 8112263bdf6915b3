"""What a search tries: options that can be trained with, the same whenever and by whomever they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.load import as_dict, given, load
from configs.search import FIRST, SPACES, Log, draws, searched, trials
from configs.training import BoundaryConfig, I2IConfig

TASKS: dict[str, type] = {"i2i": I2IConfig, "boundary": BoundaryConfig}


def tried(task: str, *argv: str) -> list[dict[str, Any]]:
    """Each trial's values of the options of the task's space."""
    config: Any = load(TASKS[task], ["data=d", "out=o", *argv])
    every = [as_dict(one) for one in trials(task, config, given(TASKS[task], argv), "o/search", "mine")]
    return [{name: value_of(one, name) for name in SPACES[task]} for one in every]


def value_of(options: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        options = options[part]
    return options


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_every_trial_has_options_in_the_ranges(task: str, seed: int) -> None:
    every = tried(task, "search=40", f"seed={seed}")
    assert len(every) == 40
    for options in (FIRST[task], *every[2:]):
        for name, value in options.items():
            values = SPACES[task][name]
            assert values.low <= value <= values.high if isinstance(values, Log) else value in values, name
    for name, values in SPACES[task].items():
        found = {options[name] for options in every[2:]}
        assert len(found) > 20 if isinstance(values, Log) else found == set(values), f"{name} is spread"


@pytest.mark.parametrize("task", TASKS)
def test_the_first_trials_are_the_given_options_and_what_did_well_elsewhere(task: str) -> None:
    defaults, first = tried(task, "search=2")
    config = as_dict(load(TASKS[task], ["data=d", "out=o"]))
    assert defaults == {name: value_of(config, name) for name in SPACES[task]}
    assert first == defaults | FIRST[task] != defaults


def test_a_longer_search_begins_with_the_shorter_one() -> None:
    assert tried("i2i", "search=9")[:5] == tried("i2i", "search=5") and len(tried("i2i", "search=1")) == 1
    assert draws(SPACES["i2i"], 0, 3) == draws(SPACES["i2i"], 0, 7)[:3] != draws(SPACES["i2i"], 1, 3)


def test_trials_differ_in_nothing_else() -> None:
    config: Any = load(I2IConfig, ["data=d", "out=o", "search=6", "objective.history=7", "seed=3"])
    for number, one in enumerate(trials("i2i", config, set(), "o/search", "mine")):
        assert (one.out, one.search, one.logger.group) == (f"o/search/{number:03}", 0, "mine")
        assert (one.objective.history, one.seed, one.fields) == (7, 3, config.fields)


def test_given_options_stay_and_the_others_keep_their_draws(tmp_path: Path) -> None:
    """Also one whose given value is the default, and one that a file gives."""
    file = tmp_path / "options.yaml"
    file.write_text("objective: {bcl_weight: 0.03}\n")
    assert given(I2IConfig, ["--config", str(file), "optim.lr=1e-3"]) == {"objective.bcl_weight", "optim.lr"}
    assert given(I2IConfig, ["optim[lr]=1e-3", "fields.use=[text]"]) == {"optim.lr", "fields.use"}
    free, fixed = tried("i2i", "search=12"), tried("i2i", "search=12", "optim.lr=1e-3")
    assert {options["optim.lr"] for options in fixed} == {1e-3}
    assert [options | {"optim.lr": 1e-3} for options in free] == fixed != free
    assert "optim.lr" not in searched("i2i", {"optim.lr"})


def test_nothing_left_to_search() -> None:
    with pytest.raises(UserError, match="every option that it would vary is given"):
        searched("boundary", set(SPACES["boundary"]) | {"seed"})


def test_options_that_do_not_go_together_are_refused_before_anything_is_trained() -> None:
    off = ["objective.listening_weight=0", "objective.pair_weight=0"]
    with pytest.raises(UserError, match="nothing is learnt"):
        tried("i2i", "search=30", *off)
