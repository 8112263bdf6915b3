"""A trained run → a folder for production: safetensors + config + ids + model card, loadable without Lightning.

    python -m pipeline.export run=RUN out=EXPORT
    python -m pipeline.export run=RUN out=EXPORT formats=[onnx,torch_export]    (programs too: docs/export.md)

Load it anywhere that has FirstPlay's `models/`:

    from pipeline.export import load
    model, config = load("EXPORT")
    vectors = model(fields)            # i2i: song vectors; see the folder's README.md for the other tasks

    from pipeline.export import load_tower
    item = load_tower("EXPORT", "item")    # boundary: one tower alone, also "user" and "boundary"
"""

from __future__ import annotations

from configs.load import command
from configs.serving import ExportConfig


def main(config: ExportConfig) -> None:
    """Run the command (see the module's docstring)."""
    from export.model import export_model  # here: --help and wrong options answer at once

    export_model(config)


if __name__ == "__main__":
    command(main, ExportConfig, __doc__)
