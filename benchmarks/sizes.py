"""How large each part is for catalogues and audiences of any size, by formulas, and measured beside them.

    python -m benchmarks.sizes                                    the table of docs/scaling.md
    python -m benchmarks.sizes service=runs/demo/service          that folder's parts beside what the formulas say

Bytes a row are those of the types that are written: float32 vectors, and the columns of plays and listening as the
service maps them. Tables of songs and users are their columns' text, and left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.load import command
from configs.options import SERVICE, opt
from configs.training import I2IModelConfig

TEXT = 384  # numbers of a MiniLM vector
PLAY = 4 + 8 + 2 * 4  # song, day, strength and three marks (`retrieval.user_plays`)
PAIR = 2 * (4 + 4)  # strength and place, by user and by song (`Listening`)
KEY = 8  # of a (user, song) pair among first plays
SHIPPED = 8 + 8 + 4  # user, song and strength of a pair on Spark


@dataclass
class SizesConfig:
    """Options of this script."""

    songs: list[int] = opt([1_000_000, 100_000_000], "songs of the columns; one of `users` each")
    users: list[int] = opt([1_000_000, 1_000_000_000], "users")
    plays: int = opt(100, "plays of a user")
    partitions: int = opt(4000, "spark.partitions")
    service: str | None = opt(None, "service folder whose files are measured", SERVICE)


def main(config: SizesConfig) -> None:
    """Run the command (see the module's docstring)."""
    if config.service:
        return beside(Path(config.service))
    print(table(config))


def table(config: SizesConfig) -> str:
    """The sizes as Markdown, a column for each size."""
    columns = [sizes(*one, config.plays, config.partitions) for one in zip(config.songs, config.users, strict=True)]
    heads = [f"{songs:,} songs, {users:,} users" for songs, users in zip(config.songs, config.users, strict=True)]
    rows = [f"| {name} | {' | '.join(shown(column[name]) for column in columns)} |" for name in columns[0]]
    return "\n".join([f"| part | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|", *rows])


def sizes(songs: int, users: int, plays: int, partitions: int) -> dict[str, float]:
    """Bytes of each part; a user has `plays` plays, all of different songs."""
    dim, every = I2IModelConfig().dim, users * plays
    vectors = songs * dim * 4
    service = vectors + songs * TEXT * 4 + every * (PLAY + PAIR + KEY) + 2 * users * dim * 4
    part = every / partitions * SHIPPED + users / partitions * dim * 4 + 2 * vectors
    return {
        f"song vectors, float32 × {dim}": vectors,
        f"text vectors of `embed`, float32 × {TEXT}": songs * TEXT * 4,
        "index: Flat or IVF,Flat": vectors,
        "index: IVF,SQ8": vectors / 4,
        "residual embeddings in training, default, a rank of several": 5 * vectors,
        "residual embeddings in training, `sparse_residual`": vectors + 4 * songs,
        f"plays ({plays} a user)": every * PLAY,
        f"audience on Spark: one of {partitions:,} parts, with twice the song vectors": part,
        "user tastes (one kind)": users * dim * 4,
        "service, mapped files": service,
    }


def beside(folder: Path) -> None:
    """What the files of a service folder take, and what the formulas say of it."""
    for name, (measured, said) in measured_and_said(folder).items():
        print(f"{name:<14} measured {measured:>16,} bytes, formula {said:>16,}")


def measured_and_said(folder: Path) -> dict[str, tuple[int, int]]:
    """Bytes of a service folder's parts: as they are, and by the formulas, of its numbers of rows."""
    names = ("tastes", "index/vectors", "plays/song_N", "listening/by_user/data")
    tastes, vectors, plays, pairs = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
    return {
        "song vectors": (vectors.nbytes, vectors.size * 4),
        "plays": (of(folder / "plays", ("first_S", "start_U", "day_M", "key_R")), len(plays) * PLAY),
        "first plays": (of(folder / "plays", ("first_S", "start_U", "day_M", "*_N")), len(pairs) * KEY),
        "listening": (of(folder / "listening", ("indptr",)), len(pairs) * PAIR),
        "user tastes": (tastes.nbytes, len(tastes) * vectors.shape[1] * 4),
    }


def of(folder: Path, without: tuple[str, ...]) -> int:
    """Bytes of the arrays below a folder, but for those of the names."""
    arrays = [path for path in folder.rglob("*.npy") if not any(path.match(f"{name}.npy") for name in without)]
    return sum(np.load(path, mmap_mode="r").nbytes for path in arrays)


def shown(size: float) -> str:
    """Bytes in the unit that suits them."""
    power = max(1, int(math.log10(max(size, 1))) // 3)
    return f"{size / 1000**power:.3g} {('', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


if __name__ == "__main__":
    command(main, SizesConfig, __doc__)
