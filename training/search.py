"""A search of training options: so many trainings by options that validation songs judge; the best becomes the run.

Each trial is a run folder in OUT/search, trained by `train.py` as ever: a search that was killed goes on, finished
trials are kept, and a larger N adds some. OUT is then the run that the best trial's options make.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from artifacts.folders import PART, check_replaceable, read_manifest, write_json, write_manifest, write_text
from artifacts.runs import VOCABULARY, differences, is_finished, read_config
from artifacts.tracking import command_run, first_rank, log_table, made, used
from callbacks.checkpoint import BEST, LESS_IS_BETTER
from callbacks.divergence import DivergenceError
from configs.errors import UserError
from configs.load import as_dict, dump, replaced
from configs.options import MADE_BY
from configs.search import searched, trials

SEARCH = "search.json"  # in OUT: the options as given, what was searched, and every trial with its figure


def search(task: str, config: Any, given: Collection[str], train: Callable[[Any], None]) -> None:
    """Train `config.search` trials by `train`, of which the first is as given, and make the best one the run.

    Args:
        task: i2i or boundary.
        config: its options.
        given: the options that are not searched.
        train: trains a run, or goes on with it, or finds it finished.

    Raises:
        UserError: `config.out` holds something else, or another search; or every trial diverged.
    """
    out = Path(config.out)
    if "WANDB_RUN_ID" in os.environ and config.logger.wandb != "off":
        raise UserError("search: WANDB_RUN_ID is set (a W&B sweep?), but each trial is a W&B run of its own: unset it")
    every = trials(task, config, given, f"{config.out}/search", config.logger.group or out.resolve().name)
    earlier = begin(out, task, config, searched(task, given))
    if len(earlier) == config.search and is_finished(out, task, read_config(out)):
        print(f"{out}: search already finished (a larger search= goes on)")
        return
    for number, trial in enumerate(every[len(earlier) :], len(earlier) + 1):
        try:
            train(trial)
        except DivergenceError as error:
            print(f"{trial.out}: {error}")
        if first_rank():
            print(f"search: {number} of {config.search} trials are done")
    if first_rank():
        finish(task, config, every, earlier)


def begin(out: Path, task: str, config: Any, names: list[str]) -> list[dict[str, Any]]:
    """Mark the folder as a search under way, or check that it is the same one; the trials that it has written down.

    Every rank may come here, before or after another one has written: `config.yaml` is written last, and read first.

    Raises:
        UserError: the folder holds something else, or another search.
    """
    check_replaceable(out, f"{task} run")
    found: dict[str, Any] = {"options": as_dict(config), "searched": names, "trials": []}
    if not (out / "config.yaml").exists():
        out.mkdir(parents=True, exist_ok=True)
        write_manifest(out, f"{task} run", {"finished": False})
        write_json(out / SEARCH, found)
        write_text(out / "config.yaml", dump(config))
        return []
    if not (out / SEARCH).exists():
        raise UserError(f"{out} holds a run that is no search: choose another out= or remove it")
    earlier = json.loads((out / SEARCH).read_text("utf-8"))
    changed = differences(earlier["options"] | {"search": 0}, found["options"] | {"search": 0})
    if earlier["searched"] != names:
        changed.append(f"searched options: {', '.join(earlier['searched'])} → {', '.join(names)}")
    if changed:
        raise UserError(f"{out} holds another search ({'; '.join(changed)}): choose another out= or remove it")
    if len(earlier["trials"]) > config.search:
        raise UserError(f"{out} holds a search of {len(earlier['trials'])} trials, and search={config.search} is fewer")
    return list(earlier["trials"])


def finish(task: str, config: Any, every: list[Any], earlier: list[dict[str, Any]]) -> None:
    """Make the best trial the run, and tell of all: `search.json`, the screen, W&B.

    Raises:
        UserError: every trial diverged.
    """
    out = Path(config.out)
    rows = earlier + [row_of(task, config, trial) for trial in every[len(earlier) :]]
    ranked = [row for row in rows if row["value"] is not None]
    if not ranked:
        raise UserError(f"{out}: every trial diverged: lower optim.lr, or raise optim.warmup")
    less = ranked[0]["monitor"] in LESS_IS_BETTER
    ranked.sort(key=lambda row: row["value"] if less else -row["value"])  # of equals the first stays first
    best = every[int(ranked[0]["trial"])]
    with command_run(f"search {task}", config) as run:
        used(run, config.data, config.features)
        if ranked[0] not in earlier or not is_finished(out, task, read_config(out)):
            take(task, best, replaced(best, {"out": config.out, "logger.group": config.logger.group}))
        given = {"options": as_dict(config), "searched": json.loads((out / SEARCH).read_text("utf-8"))["searched"]}
        write_json(out / SEARCH, given | {"best": ranked[0]["trial"], "trials": rows})
        tell(run, ranked)
        made(run, out, config.logger.upload)
    print(f"{out}: trial {ranked[0]['trial']} is the best of {len(rows)}")


def row_of(task: str, config: Any, trial: Any) -> dict[str, Any]:
    """A trial's folder, figure (None where it diverged), and options that are not as given."""
    manifest = read_manifest(trial.out, f"{task} run", MADE_BY[f"{task} run"])
    ((monitor, value),) = manifest.get("best", {"": None}).items()
    as_given, options = flat(as_dict(config)), flat(as_dict(trial))
    own = ("search", "out", "logger.group")
    other = {name: value for name, value in options.items() if value != as_given[name] and name not in own}
    return {"trial": Path(trial.out).name, "monitor": monitor, "value": value, "options": other}


def flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by their names `group.name`."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def take(task: str, trial: Any, config: Any) -> None:
    """Make a finished trial the run of `config`, which differs in its folder alone. Its checkpoint has then two names.

    The folder counts as unfinished in between: a search that was killed here does this again.
    """
    source, out, kind = Path(trial.out), Path(config.out), f"{task} run"
    manifest = read_manifest(source, kind, MADE_BY[kind])
    write_manifest(out, kind, manifest | {"finished": False})
    for name in (VOCABULARY, "logs/metrics.csv", f"checkpoints/{BEST}"):
        (out / name).parent.mkdir(exist_ok=True)
        aside = out / f"{name}{PART}"
        aside.unlink(missing_ok=True)
        try:
            os.link(source / name, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(source / name, aside)
        os.replace(aside, out / name)
        aside.unlink(missing_ok=True)  # renaming one name of a file to another one of the same file does nothing
    write_text(out / "config.yaml", dump(config))
    write_manifest(out, kind, manifest)


def tell(run: Any, ranked: list[dict[str, Any]]) -> None:
    """The trials as a table, the best first: on the screen and in W&B."""
    import polars as pl

    monitor = ranked[0]["monitor"]
    chosen = [" ".join(f"{name}={value}" for name, value in row["options"].items()) for row in ranked]
    rows = [(row["trial"], row["value"], options or "as given") for row, options in zip(ranked, chosen, strict=True)]
    print(f"\ntrial  {monitor:<12}  options that are not as given")
    for name, value, options in rows:
        print(f"{name:<5}  {value:<12.4f}  {options}")
    print()
    log_table(run, "trials", pl.DataFrame(rows, schema=["trial", monitor, "options"], orient="row"))
