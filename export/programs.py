"""The parts of a model as programs that need no code of FirstPlay: ONNX and torch.export, checked before they leave.

<format>/<part>.onnx or .pt2 takes a dict of named arrays, whose first axis is of any size, and gives "vector".
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import UserError
from export.parts import Batch, Part, parts_of
from models.text_encoder import load_tokenizer

ENDING = {"onnx": ".onnx", "torch_export": ".pt2"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18  # the one that torch's exporter is written for
OUTPUT = "vector"
TOLERANCE = 1e-4  # largest difference from the model's own vectors, as a share of their largest number above 1


def check_installed(formats: Sequence[str]) -> None:
    """Raise UserError unless what the formats need is installed."""
    absent = [name for name in PACKAGES if "onnx" in formats and find_spec(name) is None]
    if absent:
        raise UserError(f"formats=[onnx] needs {', '.join(absent)}: pip install -e '.[onnx]'")


def write_programs(model: nn.Module, config: dict[str, Any], formats: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write every part of a model in every format, and the tokenizer of one that reads text.

    Returns what config.json says of them, by format and part.

    Raises:
        UserError: a part cannot be traced, or a program does not give the vectors of the model.
    """
    told: dict[str, Any] = {form: {} for form in formats}
    for name, part in parts_of(model, config).items():
        for form, one in write_program(part, name, formats, folder).items():
            told[form][name] = one
    if config["task"] == "clip":
        load_tokenizer(config["model"]["text"]["model"]).save_pretrained(folder)
    return told


def write_program(part: Part, name: str, formats: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write one part in every format; returns what is to be said of it, by format."""
    told = {}
    with quiet(), torch.no_grad():
        with told_as_user_error(f"the part {name} cannot be traced by torch.export"):
            program = trace(part.eval())
        for form in formats:
            path = folder / form / f"{name}{ENDING[form]}"
            path.parent.mkdir(exist_ok=True)
            with told_as_user_error(f"the part {name} cannot be written for {form}"):
                save(program, part, path)
                told[form] = signature(part, path) | {"max_difference": checked(part, path)}
    return told


def trace(part: Part) -> Any:
    """The program of a part, with free axes."""
    example = part.batch(3, part.sizes[1])
    free = {key: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for key, axes in part.axes.items()}
    program: Any = torch.export.export(part, (example,), dynamic_shapes=(free,), strict=False)
    program.example_inputs = None  # they would be pickled
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where this code lies on this machine
    return program


def save(program: Any, part: Part, path: Path) -> None:
    """Write a traced program; the suffix says in which format."""
    if path.suffix == ".pt2":
        return torch.export.save(program, path)
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    made: Any = torch.onnx.export(
        program, input_names=list(part.axes), output_names=[OUTPUT], dynamic_shapes=(part.axes,), **options
    )
    made.save(path)  # one file, up to 2 GB; beyond them the weights lie beside it


def opened(path: Path, threads: int = 0) -> Callable[[Batch], Tensor]:
    """A written program as a function on the CPU; onnxruntime's has threads of its own (0: one a core)."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module(check_guards=False)  # they hold a batch of one for another program
        return lambda batch: module(batch)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run([OUTPUT], {key: one.numpy() for key, one in batch.items()})[0])


def checked(part: Part, path: Path) -> float:
    """Largest difference between a written program's vectors and the model's, on two batches of unlike sizes.

    Raises:
        UserError: it is above `TOLERANCE`, or there are NaNs.
    """
    run, found = opened(path), []
    for n, size in zip((1, 4), (part.sizes[0], part.sizes[1] + 2), strict=True):
        batch = part.batch(n, size)
        wanted_ND, made_ND = part(batch), run(batch)
        found.append(float((made_ND - wanted_ND).abs().max() / wanted_ND.abs().max().clamp(min=1)))
    if not all(one <= TOLERANCE for one in found):  # so asked, NaN is none
        raise UserError(
            f"{path.parent.name}/{path.name} gives other vectors than the model: largest difference {found[0]:.2g} and "
            f"{found[1]:.2g} in two batches, allowed {TOLERANCE:g}; export without {path.parent.name}"
        )
    return max(found)


def signature(part: Part, path: Path) -> dict[str, Any]:
    """File, inputs and output of a program."""
    batch, least = part.batch(2, part.sizes[0]), part.sizes[0]
    inputs = {
        name: {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": [part.axes[name].get(axis, width) for axis, width in enumerate(value.shape)],
        }
        for name, value in batch.items()
    }
    output = {"dtype": "float32", "shape": [list(part.axes.values())[-1][0], part(batch).shape[1]]}
    told = {"file": f"{path.parent.name}/{path.name}", "inputs": inputs, "outputs": {OUTPUT: output}}
    limits = {name: least for axes in part.axes.values() for axis, name in axes.items() if axis and least > 1}
    return told | ({"opset": OPSET} if path.suffix == ".onnx" else {}) | ({"at_least": limits} if limits else {})


@contextmanager
def told_as_user_error(what: str) -> Iterator[None]:
    """Exporters raise many types for what is one fault here: a model that they do not know."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise UserError(f"{what} ({reason}): leave it out of formats=") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks on packages that are not here and on names of axes that are alike."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
