"""Make the built-in demo world: a dataset folder with songs, recordings, listeners and plays.

    python -m pipeline.world out=DATASET

Two thousand songs take under a minute on two cores. The same seed gives the same folder. The docstring of
data/world says what depends on what; truth.parquet is for `pipeline.evaluate` alone.
"""

from __future__ import annotations

from typing import Any

from configs.data import WorldConfig
from configs.load import as_dict, command


def main(config: WorldConfig) -> None:
    """Run the command (see the module's docstring)."""
    from artifacts.folders import writing
    from data.world import generate

    options = as_dict(config)
    out = options.pop("out")
    manifest: dict[str, Any] = {"source": "built-in demo world", "options": options}
    with writing(out, "dataset", manifest) as folder:
        manifest["counts"] = generate(folder, **options)
    print("  ".join(f"{name.replace('_', ' ')}: {value}" for name, value in manifest["counts"].items()))
    print(f"wrote {out}")


if __name__ == "__main__":
    command(main, WorldConfig, __doc__)
