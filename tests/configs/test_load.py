"""Options: schema ← YAML ← key=value, and one clear line for everything that can be typed wrongly."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from configs import data, serving, targeting, training
from configs.data import PrepareConfig
from configs.errors import UserError
from configs.load import RENAMED, REPLACED, as_dict, command, dump, help_text, load
from configs.targeting import AudienceConfig, EvaluateConfig
from configs.training import I2IConfig

GIVEN = ["data=.", "out=b"]
AREAS = (data, training, targeting, serving)
SCHEMAS = [
    kind
    for area in AREAS
    for name, kind in vars(area).items()
    if name.endswith("Config") and kind.__module__ == area.__name__
]


def complaint(*overrides: str, config: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load(I2IConfig, overrides, config)
    assert "\n" not in str(caught.value), "the person at the keyboard gets one line"
    return str(caught.value)


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "i2i.yaml"
    file.write_text("data: from_file\nout: b\noptim: {lr: 0.5, warmup: 0.25}\nfields: {use: [tags]}\n")
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load(I2IConfig, GIVEN, tmp_path / "empty.yaml") == load(I2IConfig, GIVEN)
    found = load(I2IConfig, ["optim.lr=1e-4", "objective.bcl_weight=0"], file)
    assert (found.data, found.fields.use) == ("from_file", ["tags"])
    assert (found.optim.lr, found.optim.warmup, found.optim.weight_decay) == (1e-4, 0.25, 0.01)
    assert found.objective.bcl_weight == 0.0 and isinstance(found.objective.bcl_weight, float)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optim.lr=1e-4", ("optim", "lr"), 1e-4),
        ("optim.lr=1", ("optim", "lr"), 1.0),
        ("trainer.epochs=3", ("trainer", "epochs"), 3),
        ("trainer.progress=false", ("trainer", "progress"), False),
        ("logger.wandb=off", ("logger", "wandb"), "off"),  # YAML 1.1 would read False
        ("fields.use=[tags,language]", ("fields", "use"), ["tags", "language"]),
        ("fields.use=[]", ("fields", "use"), []),
        ("trainer.devices=2", ("trainer", "devices"), "2"),
        ("fields.use=[yes,no,1e3,007,null,'a, b']", ("fields", "use"), ["yes", "no", "1e3", "007", "null", "a, b"]),
        ("features=null", ("features",), None),
        ("features=runs/a=b", ("features",), "runs/a=b"),
    ],
)
def test_values_get_the_schemas_type(override: str, path: tuple[str, ...], value: Any) -> None:
    found: Any = load(I2IConfig, [*GIVEN, override])
    for part in path:
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "typed", ["007", "1e3", "0x10", "1:30", "2026-01-01", "1_000", "true", "off", "a: b", "[x]", "{x", "'", "歌\\n"]
)
def test_text_options_keep_what_was_typed(typed: str) -> None:
    assert load(I2IConfig, ["data=a", f"out={typed}"]).out == typed
    assert load(AudienceConfig, ["out=a", "index=i", f"show={typed}"]).show == typed, "a song_id may look like a number"
    assert load(PrepareConfig, ["source=a", "out=b", "split.cutoff=2026-06-01"]).split.cutoff == "2026-06-01"


@pytest.mark.parametrize("typed", ["007", "1e3", "off", "yes", "2026-06-01", "1:30", "'off'", '"007"'])
def test_text_in_a_file_is_as_typed(typed: str, tmp_path: Path) -> None:
    file, text = tmp_path / "mine.yaml", typed.strip("'\"")
    file.write_text(f"source: {typed}\nout: b\nplays: null\nsplit: {{cutoff: 2026-06-01}}\nlogger:\n  wandb: off\n")
    found = load(PrepareConfig, [], file)
    assert (found.source, found.plays, found.split.cutoff, found.logger.wandb) == (text, None, "2026-06-01", "off")
    file.write_text(
        f"data: .\nout: b\nfields: {{use: [{typed}, no]}}\noptim: {{lr: 1e-3}}\ntrainer: {{progress: off}}\n"
    )
    trained = load(I2IConfig, [], file)
    assert (trained.fields.use, trained.optim.lr, trained.trainer.progress) == ([text, "no"], 1e-3, False)


def test_names_and_lists_in_a_file_are_as_typed(tmp_path: Path) -> None:
    """As on the command line; an option that is a text may look like a list."""
    file = tmp_path / "mine.yaml"
    file.write_text("compare: {off: yes, 007: no}\n2026: x\n")
    with pytest.raises(UserError, match="2026"):
        load(EvaluateConfig, ["data=a", "index=b", "out=c"], file)
    file.write_text("compare:\n  <<: {off: yes, 1e3: a}\n  007: no\nlogger:\n  <<: {wandb: off}\n")
    found = load(EvaluateConfig, ["data=a", "index=b", "out=c"], file)
    assert found.compare == {"off": "yes", "1e3": "a", "007": "no"} and found.logger.wandb == "off"
    line = ["data=a", "index=b", "out=c", "compare={007: x, off: y}"]
    assert load(EvaluateConfig, line).compare == {"007": "x", "off": "y"}
    file.write_text("data: a\nout: b\ntrainer: {devices: [0,  1]}\n")
    line = ["data=a", "out=b", "trainer.devices=[0,  1]"]
    assert load(I2IConfig, [], file).trainer.devices == load(I2IConfig, line).trainer.devices == "[0,  1]"


@dataclasses.dataclass
class Sets:
    of: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def test_text_in_lists_of_a_dictionary_is_as_typed(tmp_path: Path) -> None:
    assert load(Sets, ["of={a: [007, off]}", "of.b=[1e3]"]).of == {"a": ["007", "off"], "b": ["1e3"]}
    (tmp_path / "sets.yaml").write_text("of:\n  a:\n  - 007\n  - no\n")
    assert load(Sets, [], tmp_path / "sets.yaml").of == {"a": ["007", "no"]}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lrr=1", ("lrr", "Did you mean", "'lr'")),
        ("objectve.bcl_weight=0", ("objectve", "Did you mean", "'objective'")),
        ("optim.lr=fast", ("optim.lr", "fast", "Float")),
        ("trainer.epochs=2.5", ("trainer.epochs", "2.5", "Integer")),
        ("objective.grouping=corelation", ("objective.grouping", "corelation", "random")),
        ("trainer=5", ("trainer",)),
        ("out=", ("out",)),
        ("out=s3://music/run", ("out=s3://music/run", "no path")),
        ("fields.use=tags", ("fields.use", "[")),
        ("fields.use=[tags", ("fields.use=[tags",)),
        ("fields.use=[R&B, hip: hop]", ("fields.use=[R&B, hip: hop]", "in quotes")),
        ("optim.lr={", ("optim.lr={",)),
        ("features=${oc.env:FIRSTPLAY_NOT_SET}", ("features", "FIRSTPLAY_NOT_SET")),
        ("--epochs", ("--epochs", "key=value")),
        ("epochs", ("epochs", "key=value")),
        ("--config=x.yaml", ("--config=x.yaml",)),
    ],
)
def test_wrong_options_are_one_clear_line(override: str, words: tuple[str, ...]) -> None:
    message = complaint(*GIVEN, override)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_option_of_earlier_versions_names_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    assert complaint(*GIVEN, f"{old}=false") == f"option '{old}' is now called '{new}'"
    group, name = old.split(".")
    (tmp_path / "mine.yaml").write_text(f"{group}: {{{name}: false}}\n")
    message = complaint(*GIVEN, config=tmp_path / "mine.yaml")
    assert "mine.yaml" in message and message.endswith(f"option '{old}' is now called '{new}'")
    load(I2IConfig, [*GIVEN, f"{new}=false"])


@pytest.mark.parametrize("name", REPLACED)
def test_an_option_that_is_gone_names_its_successor(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' has given way to pairs"):
        load(PrepareConfig, ["source=a", "out=b", f"{name}=1"])


def test_missing_keys_are_all_named() -> None:
    message = complaint("seed=3")
    assert "data=" in message and "out=" in message and "--help" in message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("optim: {lrr: 1}\n", "lrr"),
        ("- a\n- b\n", "key: value"),
        ("just words\n", "key: value"),
        ("optim: {lr: fast}\n", "fast"),
        ("a: b: c\n", "not readable as YAML"),
        ("fields: {use: [tags, [genres]]}\n", "in quotes"),
        ("\x00\x01", "not readable as YAML"),
    ],
)
def test_bad_yaml_is_one_clear_line(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    message = complaint(*GIVEN, config=file)
    assert word in message and "mine.yaml" in message


@pytest.mark.parametrize("kind", SCHEMAS, ids=lambda kind: kind.__name__)
def test_help_lists_every_option_with_its_meaning(kind: type) -> None:
    text = help_text(kind, "What it does.")
    assert text.startswith("What it does.")

    def check(one: Any, prefix: str) -> None:
        for field in dataclasses.fields(one):
            if isinstance(field.default_factory, type) and dataclasses.is_dataclass(field.default_factory):
                check(field.default_factory, f"{prefix}{field.name}.")
            else:
                line = next(line for line in text.splitlines() if line.split()[:1] == [f"{prefix}{field.name}"])
                assert field.metadata["help"] in line

    check(kind, "")


def test_resolved_yaml_reads_back_the_same(tmp_path: Path) -> None:
    first = load(I2IConfig, ["data=007", "out=off", "optim.lr=1e-5", "fields.use=[tags]"])
    (tmp_path / "config.yaml").write_text(dump(first))
    again = load(I2IConfig, [], tmp_path / "config.yaml")
    assert again == first and as_dict(again) == as_dict(first)


def run(argv: list[str], seen: list[Any], error: BaseException | None = None) -> None:
    def main(config: Any) -> None:
        seen.append(config)
        if error is not None:
            raise error

    command(main, I2IConfig, "Doc.", argv)


def test_command_runs_with_file_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: x\nout: off\nseed: 1\n")
    seen: list[Any] = []
    run(["seed=2", "--config", str(tmp_path / "c.yaml"), "data=."], seen)
    assert (seen[0].data, seen[0].out, seen[0].seed) == (".", "off", 2)
    run(["nonsense", "-h"], seen)
    assert len(seen) == 1, "help needs nothing else"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["data=a"], "out="),
        (["data=a", "out=b", "sed=1"], "sed"),
        (["--config"], "--config needs a YAML file"),
        (["--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_command_exits_2_with_one_line(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    with pytest.raises(SystemExit) as caught:
        run(argv, seen)
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and not seen and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and says in err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("no such folder"), 2, "no such folder"),
        (PermissionError(13, "Permission denied", "out/songs.parquet"), 2, "Permission denied: 'out/songs.parquet'"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "run the same command again"),
    ],
)
def test_command_turns_errors_of_main_into_exit_codes(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(GIVEN, [], error)
    err = capsys.readouterr().err
    assert caught.value.code == code and err.count("\n") == 1 and says in err
    with pytest.raises(ZeroDivisionError):  # a mistake of our own
        run(GIVEN, [], ZeroDivisionError())


@pytest.mark.parametrize("chosen", [None, "ACTIVE"])
def test_idle_threads_sleep_unless_the_user_has_chosen(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/test_startup.py has that no library is loaded before."""
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    run(GIVEN, [])
    assert os.environ["OMP_WAIT_POLICY"] == (chosen or "PASSIVE")
