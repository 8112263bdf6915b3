"""New songs → ranked users, each with a score and the songs that explain it.

    python -m pipeline.audience mode=i2i2u index=INDEX out=AUDIENCE
    python -m pipeline.audience mode=taste index=INDEX out=AUDIENCE
    python -m pipeline.audience mode=cat index=INDEX out=AUDIENCE
    python -m pipeline.audience mode=union index=INDEX out=AUDIENCE exclude=USERS.parquet targeting.per_user_cap=5
    python -m pipeline.audience mode=union index=INDEX out=AUDIENCE 'users_where=country in ["CN", "JP"] and age >= 18'
    python -m pipeline.audience mode=boundary index=INDEX boundary=RUN out=AUDIENCE
    python -m pipeline.audience mode=rank index=INDEX boundary=RUN rank=RUN out=AUDIENCE
    python -m pipeline.audience mode=i2i2u index=INDEX out=AUDIENCE targeting.exploration=0.05
    python -m pipeline.audience mode=taste index=INDEX plays=FIRST.parquet out=AUDIENCE    (songs warm up)
    python -m pipeline.audience mode=union index=INDEX out=AUDIENCE engine=spark spark.master=local[8]

Writes audience.parquet (song_id, user_id, rank, score, margin, because; with exploration also explored, propensity; of
mode=rank also named_by, raised_by: docs/ranking.md), similar.parquet (song_id, similar_song_id, similarity), with a
boundary recommendations.parquet (user_id, song_id, rank, margin: for each user the songs above their boundary, if any),
and prints one song's audience as a table.
"""

from __future__ import annotations

from configs.load import command
from configs.targeting import AudienceConfig


def main(config: AudienceConfig) -> None:
    """Run the command (see the module's docstring)."""
    from inference.audience import make_audience  # here: --help and wrong options answer at once

    make_audience(config)


if __name__ == "__main__":
    command(main, AudienceConfig, __doc__)
