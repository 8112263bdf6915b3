"""Export the parts of a model as ONNX and torch.export programs, which need no code of FirstPlay, and verify them.

<format>/<part>.onnx or .pt2 takes a dict of named arrays, whose first axis is dynamic, and returns "vector".
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
OPSET = 18  # the native one of torch's exporter
OUTPUT = "vector"
TOLERANCE = 1e-4  # maximum difference from the model's vectors, relative to max(1, their largest absolute value)


def check_installed(formats: Sequence[str]) -> None:
    """Raise UserError unless the packages that the formats need are installed."""
    absent = [name for name in PACKAGES if "onnx" in formats and find_spec(name) is None]
    if absent:
        raise UserError(f"formats=[onnx] needs {', '.join(absent)}: pip install -e '.[onnx]'")


def write_programs(model: nn.Module, config: dict[str, Any], formats: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write every part of a model in every format, and the tokenizer of a model with text.

    Returns:
        Signatures for config.json, by format and part.

    Raises:
        UserError: a part cannot be traced, or a program's vectors differ from the model's.
    """
    signatures: dict[str, Any] = {form: {} for form in formats}
    for name, part in parts_of(model, config).items():
        for form, described in write_program(part, name, formats, folder).items():
            signatures[form][name] = described
    if config["task"] == "clip":
        load_tokenizer(config["model"]["text"]["model"]).save_pretrained(folder)
    return signatures


def write_program(part: Part, name: str, formats: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write one part in every format; returns its signatures by format."""
    signatures = {}
    with quiet(), torch.no_grad():
        with exporter_errors(f"the part {name} cannot be traced by torch.export"):
            program = trace(part.eval())
        for form in formats:
            path = folder / form / f"{name}{ENDING[form]}"
            path.parent.mkdir(exist_ok=True)
            with exporter_errors(f"the part {name} cannot be written for {form}"):
                save(program, part, path)
                signatures[form] = signature(part, path) | {"max_difference": checked(part, path)}
    return signatures


def trace(part: Part) -> Any:
    """Trace a part with dynamic axes."""
    example = part.batch(3, part.sizes[1])
    free = {key: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for key, axes in part.axes.items()}
    program: Any = torch.export.export(part, (example,), dynamic_shapes=(free,), strict=False)
    program.example_inputs = None  # would be pickled into the file
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # has paths of this machine
    return program


def save(program: Any, part: Part, path: Path) -> None:
    """Write a traced program in the format of the suffix."""
    if path.suffix == ".pt2":
        return torch.export.save(program, path)
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    made: Any = torch.onnx.export(
        program, input_names=list(part.axes), output_names=[OUTPUT], dynamic_shapes=(part.axes,), **options
    )
    made.save(path)  # one file up to 2 GB; beyond, weights go to a second file


def opened(path: Path, threads: int = 0) -> Callable[[Batch], Tensor]:
    """Load a program as a function on the CPU; `threads` are onnxruntime's (0: one per core)."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module(check_guards=False)  # guards reject a batch of one
        return lambda batch: module(batch)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run([OUTPUT], {key: x.numpy() for key, x in batch.items()})[0])


def checked(part: Part, path: Path) -> float:
    """Maximum difference of a program's vectors from the model's, on two batches of different sizes.

    Raises:
        UserError: the difference is above `TOLERANCE`, or NaN.
    """
    run, differences = opened(path), []
    for n, size in zip((1, 4), (part.sizes[0], part.sizes[1] + 2), strict=True):
        batch = part.batch(n, size)
        expected_ND, actual_ND = part(batch), run(batch)
        differences.append(float((actual_ND - expected_ND).abs().max() / expected_ND.abs().max().clamp(min=1)))
    if not all(difference <= TOLERANCE for difference in differences):  # also true for NaN
        raise UserError(
            f"{path.parent.name}/{path.name} gives other vectors than the model: largest difference "
            f"{differences[0]:.2g} and {differences[1]:.2g} in two batches, allowed {TOLERANCE:g}; export without "
            f"{path.parent.name}"
        )
    return max(differences)


def signature(part: Part, path: Path) -> dict[str, Any]:
    """Describe a program: file, inputs, output, and minimum sizes of dynamic axes."""
    minimum = part.sizes[0]
    batch = part.batch(2, minimum)
    inputs = {
        name: {
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": [part.axes[name].get(axis, width) for axis, width in enumerate(value.shape)],
        }
        for name, value in batch.items()
    }
    output = {"dtype": "float32", "shape": [list(part.axes.values())[-1][0], part(batch).shape[1]]}
    described = {"file": f"{path.parent.name}/{path.name}", "inputs": inputs, "outputs": {OUTPUT: output}}
    limits = {name: minimum for axes in part.axes.values() for axis, name in axes.items() if axis and minimum > 1}
    return described | ({"opset": OPSET} if path.suffix == ".onnx" else {}) | ({"at_least": limits} if limits else {})


@contextmanager
def exporter_errors(what: str) -> Iterator[None]:
    """Raise the exporters' many types of error as UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        raise UserError(f"{what} ({reason}): leave it out of formats=") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' warnings about absent packages and repeated names of axes."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
