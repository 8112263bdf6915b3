"""Songs by a text, by examples or by a recording → the nearest ones, for a whole file of queries.

    python -m pipeline.search model=SERVICE queries=QUERIES.jsonl out=SEARCH

SERVICE is a folder of pipeline.service. QUERIES has a query a line, as JSON, with the fields of the service's
`POST /search`; `audio` is the path of a recording, from the file's folder on:

    {"text": "calm piano at night", "k": 50}
    {"text": "安静的钢琴", "where": "language == 'zh' and released_at >= '2026-01-01'"}
    {"like": ["s00001", "s00007"], "dislike": ["s00003"], "among": "new"}
    {"audio": "humming.wav", "where": "\\"folk\\" in genres"}

Writes results.parquet (query, which is the line's number, song_id, rank, score). A line that cannot be answered is
skipped, counted and named; manifest.json has all of them, and the lines for which no song is found.
"""

from __future__ import annotations

from configs.load import command
from configs.serving import SearchConfig


def main(config: SearchConfig) -> None:
    """Run the command (see the module's docstring)."""
    from serving.bulk_search import search_songs  # here: --help and wrong options answer at once

    search_songs(config)


if __name__ == "__main__":
    command(main, SearchConfig, __doc__)
