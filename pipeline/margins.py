"""Users' margin vectors → a collection of Milvus, in which the users of a song are looked up by their boundaries.

    python -m pipeline.margins run=RUN out=MARGINS
    python -m pipeline.margins run=RUN out=MARGINS uri=http://milvus:19530
    python -m pipeline.audience mode=boundary index=INDEX boundary=RUN margins=MARGINS out=AUDIENCE

A user's vector is [u, −⟨u, b⟩]: its inner product with a song's [i, 1] is how far the song clears their boundary.
Beside it stands what conditions may name of the user (users_where=). The collection is in the margins folder
(milvus-lite, one process at a time), or on a server (`uri=`), where each build has one of its own. The folder holds
users.parquet (what is said of each user, in the order of the collection's numbers) and manifest.json, which ties it to
the run. A password is given as the environment variable MILVUS_TOKEN.
"""

from __future__ import annotations

from configs.load import command
from configs.targeting import MarginsConfig


def main(config: MarginsConfig) -> None:
    """Run the command (see the module's docstring)."""
    from inference.margins import make_margins  # here: --help and wrong options answer at once

    make_margins(config)


if __name__ == "__main__":
    command(main, MarginsConfig, __doc__)
