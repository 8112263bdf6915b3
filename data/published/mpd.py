"""Read Spotify's Million Playlist Dataset as published: slices of a thousand playlists, in JSON.

A playlist stands for a user. No track has a time: `modified_at` is of the playlist as a whole, and is not read.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from configs.errors import UserError
from data.published.files import Found, as_file, blocks, once, pieces, write_piece

TRACK = ("track_uri", "track_name", "artist_uri", "artist_name", "album_name")
PLAYLIST = {
    "pid": pl.Int64(),
    "name": pl.String(),
    "collaborative": pl.String(),  # the words "true" and "false"
    "tracks": pl.List(pl.Struct(dict.fromkeys(TRACK, pl.String()))),
}
SLICE = re.compile(r"mpd\.slice\.(\d+)-\d+\.json(?:\.gz|\.bz2|\.xz)?")


def read(source: Path, folder: Path, found: Found) -> None:
    """Write a dataset folder from the slices in `source` or its folder data/.

    Raises:
        UserError: there is no slice, or one is damaged.
    """
    files = {int(match[1]): path for path in sorted(source.rglob("*.json*")) if (match := SLICE.fullmatch(path.name))}
    if not files:
        raise UserError(f"{source} has no mpd.slice.A-B.json: give the folder of the slices")
    users = []
    parts = folder / "tracks"
    for number, path in sorted(files.items()):
        lists = slice_of(path)
        users.append(lists.select(user_id="pid", name=named(), collaborative="collaborative"))
        tracks = lists.select("pid", "tracks").explode("tracks", empty_as_null=False).unnest("tracks")
        tracks = tracks.with_row_index("_row", offset=1)
        bad = pl.col("track_uri").is_null()
        tracks = found.leave_out(tracks, bad, "tracks_without_uri", "tracks without track_uri", path)
        write_piece(tracks.select(user_id="pid", song_id="track_uri"), folder / "plays", number)
        write_piece(tracks.select(TRACK).unique("track_uri", keep="first", maintain_order=True), parts, number)
    once(pl.concat(users), "user_id", "playlists", found).write_parquet(folder / "users.parquet")
    songs = pieces(parts).group_by("track_uri").agg(pl.all().min()).collect(engine="streaming").sort("track_uri")
    names = {"song_id": "track_uri", "title": "track_name", "artist_id": "artist_uri"}
    songs.select(**names, artist="artist_name", album="album_name").write_parquet(folder / "songs.parquet")
    found.notes.append("mpd: a playlist stands for a user; tracks have no times")


def slice_of(path: Path) -> pl.DataFrame:
    """The playlists of a slice."""
    with as_file(path):
        content = pl.read_json(b"".join(blocks(path)), schema={"playlists": pl.List(pl.Struct(PLAYLIST))})
    return content.explode("playlists").drop_nulls().unnest("playlists")


def named() -> pl.Expr:
    """The name of a playlist, so that names that differ in case and spaces are one."""
    return pl.col("name").str.to_lowercase().str.strip_chars().str.replace_all(r"\s+", " ")
