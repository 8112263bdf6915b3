"""Export the service's store as tables for the next training: plays, feedback on recommendations, accepted songs.

    python -m serving.feedback store=STORE out=FOLDER

Writes plays.parquet, i2i_feedback.parquet (plays of a song that was recommended beside another) and songs.parquet with
audio/*.flac, in the columns of docs/data.md, which says how they join the dataset; and opted_out.parquet (user_id), the
`exclude=` of pipeline.audience. Every export is complete. The
service may run meanwhile; what arrives after the command has begun is left for the next export.
"""

from __future__ import annotations

from configs.load import command
from configs.serving import FeedbackConfig


def main(config: FeedbackConfig) -> None:
    """Run the command (see the module's docstring)."""
    from serving.feedback_tables import write_feedback  # here: --help and wrong options answer at once

    write_feedback(config)


if __name__ == "__main__":
    command(main, FeedbackConfig, __doc__)
