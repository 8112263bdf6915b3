"""The rules of the house that a linter does not know: who imports whom, who opens files, how long files and functions
may be, and that the demo world's truth is opened by the evaluation alone."""

from __future__ import annotations

import ast
import builtins
import shutil
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

ROOT = Path(__file__).parents[1]
NOT_OURS = {".venv", "tests", "runs", "build", "dist"}
PLAIN = ("objectives", "models", "retrieval")  # functions of tensors and arrays
# each may import those before it; `retrieval`, `models` and `objectives` are PLAIN and import one another alone
ORDER = ("configs", "objectives", "models", "retrieval", "artifacts", "data", "datamodules", "lightning_modules",
         "callbacks", "inference", "training", "evaluation", "export", "serving", "pipeline", "train",
         "benchmarks")  # fmt: skip
OURS = set(ORDER)
FORBIDDEN = {
    **{package: set(ORDER[place + 1 :]) for place, package in enumerate(ORDER)},
    **dict.fromkeys(PLAIN, (OURS - set(PLAIN)) | {"lightning", "pytorch_lightning", "omegaconf", "yaml"}),
    "configs": OURS - {"configs"},
    "lightning_modules": (OURS - {*PLAIN, "lightning_modules"}) | {"omegaconf", "yaml"},
}
FILES = {"pathlib", "os", "io", "shutil", "tempfile", "json", "pickle", "polars", "pyarrow", "soundfile", "safetensors"}
OPENERS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "load", "save", "memmap", "fromfile",
           "tofile", "loadtxt", "genfromtxt", "read_index", "write_index", "read_parquet", "scan_parquet"}  # fmt: skip
READS_WEIGHTS = {
    "models/packaged.py",
    "models/vocabulary.py",
    "models/pretrained.py",
    "models/musicnn.py",
    "models/use_multilingual.py",
}  # from an encoder's name to its weights
KERNELS = {"data/item_pairs/neighbours.py": {"_fill", "_intersect"},
           "retrieval/auction.py": {"_bid"}}  # numba compiles these as one loop over arrays  # fmt: skip


def sources(root: Path, folder: str = "") -> Iterator[tuple[str, ast.Module]]:
    """Our Python files under a folder, by their path from the root."""
    for path in sorted((root / folder).rglob("*.py")):
        name = path.relative_to(root)
        if not NOT_OURS & set(name.parts):
            yield name.as_posix(), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of everything that is imported, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(f"relative import, line {node.lineno}" if node.level else str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            found |= {str(arg.value).split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def called(node: ast.Call) -> str:
    """`f` of `f(…)` and of `x.f(…)`."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def wrong_imports(root: Path) -> list[str]:
    return [
        f"{name} imports {other}"
        for name, tree in sources(root)
        for other in sorted(imported(tree))
        if other in forbidden_to(name) or other.startswith("relative")
    ]


def forbidden_to(name: str) -> set[str]:
    """Packages that a file must not import: the later ones, and commands whatever they are."""
    package = name.split("/")[0].removesuffix(".py")
    return FORBIDDEN.get(package, set()) | {"pipeline", "train"}


def file_use(root: Path) -> list[str]:
    found = []
    for package in PLAIN:
        for name, tree in sources(root, package):
            if name not in READS_WEIGHTS:
                found += [f"{name} imports {other}" for other in sorted(imported(tree) & FILES)]
                calls = {called(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
                found += [f"{name} calls {call}" for call in sorted(calls & OPENERS)]
    return found


def package_order(root: Path) -> list[str]:
    """Our top-level packages, each after all that it imports; raises CycleError where there is no such order."""
    graph: dict[str, set[str]] = {}
    for name, tree in sources(root):
        package = name.split("/")[0].removesuffix(".py")
        graph.setdefault(package, set()).update((imported(tree) & OURS) - {package})
    return list(TopologicalSorter(graph).static_order())


def file_order(root: Path) -> list[str]:
    """Our files, each after all that it imports, also inside functions; raises CycleError where there is no order."""
    trees = dict(sources(root))
    module_of = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in trees}
    graph = {}
    for name, tree in trees.items():
        asked: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                asked |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        graph[name] = {module_of[one] for one in asked & module_of.keys()} - {name}
    return list(TopologicalSorter(graph).static_order())


def too_long(root: Path) -> list[str]:
    found = []
    for name, _ in sources(root):
        lines = len((root / name).read_text("utf-8").splitlines())
        limit = 150 if name.startswith("lightning_modules/") else 400
        if lines > limit:
            found.append(f"{name}: {lines} lines, at most {limit}")
    return found


def option_checks(root: Path) -> list[str]:
    """Errors raised for nothing but options, outside configs/ where each group of options checks itself."""
    found, plain = [], {"config", "options", *dir(builtins)}
    for name, tree in sources(root):
        for node in ast.walk(tree) if not name.startswith(("configs/", "benchmarks/")) else ():
            if isinstance(node, ast.If) and isinstance(raised := node.body[0], ast.Raise):
                names = {one.id for one in ast.walk(node.test) if isinstance(one, ast.Name)}
                of_user = isinstance(raised.exc, ast.Call) and called(raised.exc) == "UserError"
                if of_user and names <= plain and names & {"config", "options"}:
                    found.append(f"{name}, line {node.lineno}: an option is checked here")
    return found


def too_big(root: Path) -> list[str]:
    """Functions above 40 lines, docstring not counted, or 8 arguments; constructors, losses and kernels may be."""
    found = []
    for name, tree in sources(root):
        free = {"__init__"} | KERNELS.get(name, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in free:
                head = node.body[0] if ast.get_docstring(node) else None
                lines = len_of(node) - (len_of(head) if head else 0)
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments = len([one for one in every if one.arg not in ("self", "cls")])
                if lines > 40 or (arguments > 8 and not name.startswith("objectives/")):
                    found.append(f"{name}: {node.name} has {lines} lines and {arguments} arguments, at most 40 and 8")
    return found


def len_of(node: ast.stmt) -> int:
    """Lines of a statement."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


RULES = (wrong_imports, file_use, too_long, too_big, option_checks)


@pytest.mark.parametrize("finds", RULES, ids=lambda finds: finds.__name__)
def test_the_rules_hold(finds: Callable[[Path], list[str]]) -> None:
    assert finds(ROOT) == []


def test_packages_have_an_order() -> None:
    order = package_order(ROOT)
    assert order.index("models") < order.index("lightning_modules") < order.index("train")


def test_files_have_an_order() -> None:
    order = file_order(ROOT)
    assert order.index("serving/sqlite.py") < order.index("serving/database.py") < order.index("serving/store.py")


@pytest.mark.parametrize(
    ("file", "text", "finds"),
    [
        ("objectives/a.py", "def f():\n    from lightning import pytorch", wrong_imports),
        ("models/a.py", "if TYPE_CHECKING:\n    import configs.data", wrong_imports),
        ("retrieval/deep/a.py", "from ..configs import errors", wrong_imports),
        ("lightning_modules/a.py", "from data.catalogue import Catalogue", wrong_imports),
        ("models/a.py", "importlib.import_module('artifacts.runs')", wrong_imports),
        ("models/a.py", "x = open('a')", file_use),
        ("retrieval/a.py", "import numpy as np\nx = np.load('a')", file_use),
        ("objectives/a.py", "from pathlib import Path", file_use),
        ("lightning_modules/a.py", "\n" * 151, too_long),
        ("pipeline/a.py", "\n" * 401, too_long),
        ("inference/a.py", "def f(config):\n    if config.top < 1:\n        raise UserError('top')", option_checks),
        ("data/a.py", "def f():\n" + "    x = 1\n" * 40, too_big),
        ("data/a.py", "def f(a, b, c, d, e, *, f, g, h, i):\n    pass", too_big),
    ],
)
def test_the_rules_can_be_broken(tmp_path: Path, file: str, text: str, finds: Callable[[Path], list[str]]) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    assert finds(tmp_path) == []
    (tmp_path / file).write_text(text)
    assert len(finds(tmp_path)) == 1 and finds(tmp_path)[0].startswith(file)


def test_an_import_circle_is_found(tmp_path: Path) -> None:
    for name, text in (("callbacks", "import retrieval"), ("retrieval", "def f():\n    import callbacks.recall")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(text)
    with pytest.raises(CycleError):
        package_order(tmp_path)


def test_a_circle_of_two_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text("from data import b")
    (tmp_path / "data" / "b.py").write_text("if TYPE_CHECKING:\n    from data.a import A")
    with pytest.raises(CycleError):
        file_order(tmp_path)


# --------------------------------------------------------------------------------- the truth is the evaluation's alone


Weights = dict[str, dict[str, torch.Tensor]]
TrainOn = Callable[[Path, Path], Weights]


@pytest.fixture(scope="module")
def train_on(
    prepare: Callable[..., Path], train_i2i: Callable[..., Path], train_boundary: Callable[..., Path]
) -> TrainOn:
    """`train_on(world, folder)`: `pipeline.prepare`, then one epoch of `train.py i2i` and of `train.py boundary`."""
    from artifacts.runs import open_run

    def run(world: Path, folder: Path) -> Weights:
        options = [f"data={prepare(world, folder / 'catalogue')}", "trainer.epochs=1"]
        tasks = {"i2i": train_i2i, "boundary": train_boundary}
        return {task: open_run(train(folder / task, *options), task).weights for task, train in tasks.items()}

    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A silent world of a hundred songs, with its truth."""
    from data.world import generate

    folder = tmp_path_factory.mktemp("world")
    generate(folder, songs=100, users=120, truth_users=120, audio=False)
    return folder


@pytest.fixture(scope="module")
def trained(world: Path, train_on: TrainOn, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """The catalogue of the world, and what is trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    weights = train_on(world, folder)
    return folder / "catalogue", weights


@pytest.mark.parametrize("truth", [b"not a table", None], ids=["garbage", "absent"])
def test_truth_changes_no_table_and_no_weight(
    truth: bytes | None, world: Path, trained: tuple[Path, Weights], train_on: TrainOn, tmp_path: Path
) -> None:
    """Whoever read it would fail."""
    other, (catalogue, expected) = tmp_path / "world", trained
    shutil.copytree(world, other, ignore=shutil.ignore_patterns("truth.parquet"))
    if truth is not None:
        (other / "truth.parquet").write_bytes(truth)
    weights = train_on(other, tmp_path)
    tables = sorted(path.name for path in catalogue.glob("*.parquet"))
    assert {"plays.parquet", "pairs.parquet", "val_pairs.parquet"} <= set(tables)
    for name in tables:
        assert_frame_equal(pl.read_parquet(tmp_path / "catalogue" / name), pl.read_parquet(catalogue / name))
    torch.testing.assert_close(weights, expected, rtol=0, atol=0, equal_nan=True)


def test_the_weights_do_hang_on_the_plays(
    world: Path, trained: tuple[Path, Weights], train_on: TrainOn, tmp_path: Path
) -> None:
    """The control of the test above: without the first fifty plays it is another model."""
    other = shutil.copytree(world, tmp_path / "world")
    pl.read_parquet(world / "plays.parquet").tail(-50).write_parquet(other / "plays.parquet")
    weights = train_on(other, tmp_path)["boundary"]
    assert any(not torch.equal(value, weights[name]) for name, value in trained[1]["boundary"].items())
