"""Read a folder of music: songs and what their tags say (`prepare format=folder`), plays from a table as ever."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from unicodedata import normalize

import polars as pl
from tqdm import tqdm

from configs.errors import UserError
from data.contract.dataset import Check, Dataset, check_log, read_dataset
from data.words import plain_lyrics

SUFFIXES = {
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".ape", ".au", ".caf", ".dsf", ".flac", ".m4a", ".m4b", ".mka", ".mp3",
    ".mp4", ".mpc", ".oga", ".ogg", ".opus", ".rf64", ".tak", ".tta", ".w64", ".wav", ".webm", ".wma", ".wv",
}  # fmt: skip
LYRICS = (".lrc", ".srt", ".vtt", ".txt")  # files of lyrics beside a recording, the first with words counting
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# our field → its names in ID3, MP4, Vorbis comments and APE, ASF, in lower case, the first that has a value counting
NAMES = {
    "title": ("tit2", "\xa9nam", "title"),
    "artist": ("tpe1", "\xa9art", "artist", "author", "albumartist", "tpe2", "aart"),
    "album": ("talb", "\xa9alb", "album", "wm/albumtitle"),
    "date": ("tdrl", "tdrc", "tyer", "\xa9day", "date", "year", "wm/year"),
    "genre": ("tcon", "\xa9gen", "genre", "wm/genre"),
    "lyrics": ("uslt", "\xa9lyr", "lyrics", "unsyncedlyrics", "unsynced lyrics", "wm/lyrics"),
    "language": ("tlan", "language", "wm/language"),
    "musicbrainz": (
        "ufid",
        "musicbrainz_trackid",
        "musicbrainz/track id",
        "----:com.apple.itunes:musicbrainz track id",
    ),
}
NUMBER = re.compile(r"^(\d{1,3})(?:\s*[-–—._)]\s*|\s+)(?=\D)")  # that of a track, if all files of a folder have one
TRACK_NUMBER = re.compile(r"^(?:0\d{1,2}(?:\s*[-–—._)]\s*|\s+)|\d{1,3}\s*[-–—.)]\s+)(?=\D)")  # in any folder
DAY = re.compile(r"^(\d{4})(?:-?(\d\d)(?:-?(\d\d))?)?")  # yt-dlp writes no hyphens
SCHEMA = {
    "song_id": pl.String, "title": pl.String, "artist_id": pl.String, "album": pl.String, "language": pl.String,
    "genres": pl.List(pl.String), "lyrics": pl.String, "released_at": pl.Date, "audio_path": pl.String,
}  # fmt: skip

Tags = dict[str, list[str]]
Opened = Callable[[Path], AbstractContextManager[BinaryIO]]
Each = Callable[[Callable[[Path], Any], list[Path]], Iterable[Any]]


@dataclass
class Found:
    """What a folder holds: rows of songs, and paths by what was odd about them."""

    songs: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    lyrics: dict[Path, list[Path]] = field(default_factory=dict)  # files of them, by their paths as `alike` has them

    def skip(self, why: str, path: str) -> None:
        """Remember a path that is left out."""
        self.skipped.setdefault(why, []).append(path)

    def lack(self, what: str, lacking: bool) -> None:
        """Count a song that lacks something."""
        self.lacking[what] = self.lacking.get(what, 0) + lacking


def open_file(path: Path) -> BinaryIO:
    """Open a recording to read its tags."""
    return path.open("rb")


def read_folder(
    source: str | Path,
    plays: str | None,
    check: Check,
    ids: str = "path",
    opened: Opened = open_file,
    each: Each = map,
) -> Dataset:
    """Read a folder of music: a song for each recording, with what its tags say; other tables as `read_dataset`.

    Args:
        source: the folder; folders in it are read too, links only to what lies in it.
        plays: as `read_dataset`.
        check: as `read_dataset`.
        ids: what is a song's id: its path in the folder, the name of its file, or its MusicBrainz recording id where
            it has one, else the path.
        opened: how a recording is opened; it can seek.
        each: applies a function to paths, in their order.

    Raises:
        UserError: no folder, no plays (told before tags are read), no recording, mutagen is not installed; as
            `read_dataset`.
    """
    source = Path(source)
    if not source.is_dir():
        raise UserError(f"folder of music not found: {source}")
    try:
        import mutagen  # noqa: F401
    except ImportError:
        raise UserError("format=folder reads tags with mutagen: pip install mutagen") from None
    check_log(source, plays)
    found = scan(source, ids, opened, each)
    if not found.songs:
        skipped = "; ".join(f"{len(paths)} {why}" for why, paths in found.skipped.items()) or "no file is one"
        raise UserError(f"{source} holds no recording that can be read ({skipped})")
    dataset = read_dataset(source, plays, check, pl.DataFrame(found.songs, schema=SCHEMA))
    for why, paths in found.skipped.items():
        dataset.rejected[why] = {"count": len(paths), "examples": paths[:5], "what": f"files: {why}"}
    size = len(found.songs)
    dataset.notes += [
        f"folder: {count} of {size} songs have no {what}" for what, count in found.lacking.items() if count
    ]
    return dataset


def scan(source: Path, ids: str, opened: Opened = open_file, each: Each = map) -> Found:
    """All recordings of a folder, in the order of their paths; arguments as `read_folder`."""
    found, seen = Found(), set[str]()
    paths = list(recordings(source, found))
    numbered = numbered_folders(paths)
    all_tags = each(partial(tags_of, opened=opened), paths)
    for path, tags in zip(paths, tqdm(all_tags, "tags", len(paths), unit="file"), strict=True):
        name = path.relative_to(source).as_posix()
        if tags is None:
            found.skip("not readable as sound (left out)", name)
            continue
        mbid = next(iter(tags.get("musicbrainz", [])), None)
        song_id = normalize("NFC", {"path": name, "name": path.stem}.get(ids) or mbid or name)
        if song_id in seen:
            found.skip("of an id that an earlier file has (left out)", name)
            continue
        seen.add(song_id)
        if ids == "musicbrainz":
            found.lack("MusicBrainz recording id in their tags (their path is the id)", mbid is None)
        row = row_of(path, name, tags, found)
        row["title"] = row["title"] or title_of(path.stem, path.parent in numbered)
        found.songs.append({"song_id": song_id, **row})
    return found


def recordings(source: Path, found: Found) -> Iterator[Path]:
    """Files whose names end as those of recordings; hidden ones and links that lead out of the folder are left out."""
    root = source.resolve()
    for folder, folders, files in os.walk(source):  # which enters no folder that is a link
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(folder) / name).is_symlink():
                found.skip("links to folders (not followed)", shown(Path(folder) / name, source))
        for name in sorted(files):
            path = Path(folder) / name
            if path.suffix.lower() in LYRICS and not name.startswith("."):
                found.lyrics.setdefault(alike(path), []).append(path)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            try:
                str(path).encode("utf-8")
            except UnicodeEncodeError:
                found.skip("with a name that is not UTF-8 (left out)", shown(path, source))
                continue
            if path.is_symlink() and root not in path.resolve().parents:
                found.skip("links out of the folder (not followed)", shown(path, source))
                continue
            if not path.is_file():
                found.skip("no regular file (left out)", shown(path, source))
                continue
            yield path


def shown(path: Path, source: Path) -> str:
    """A path as it can be printed."""
    return path.relative_to(source).as_posix().encode("utf-8", "replace").decode("utf-8")


def row_of(path: Path, name: str, tags: Tags, found: Found) -> dict[str, Any]:
    """A row of songs, without its id; what it lacks is counted."""
    first = {key: values[0] for key, values in tags.items() if values}
    day, is_year = released(first.get("date", ""))
    lyrics = first.get("lyrics") or beside(path, name, found)
    found.lack("title in their tags (their file's name is taken)", "title" not in first)
    found.lack("artist in their tags", "artist" not in first)
    found.lack("genre in their tags", not tags.get("genre"))
    found.lack("date of release in their tags", day is None)
    found.lack("more than a year of release: 1 January is taken", is_year)
    found.lack("lyrics, in their tags or in a .lrc, .srt, .vtt or .txt file of the same name", lyrics is None)
    genres = [part.strip() for value in tags.get("genre", []) for part in value.split(";")]
    return {
        "title": first.get("title"),
        "artist_id": first.get("artist"),
        "album": first.get("album"),
        "language": first.get("language"),
        "genres": list(dict.fromkeys(genre for genre in genres if genre)) or None,
        "lyrics": lyrics,
        "released_at": day,
        "audio_path": name,
    }


def released(text: str) -> tuple[date | None, bool]:
    """The day that a tag says, and whether it says the year alone."""
    said = DAY.match(text.strip())
    if said is None or not 1860 <= int(said[1]) <= 2100:
        return None, False
    try:
        return date(int(said[1]), int(said[2] or 1), int(said[3] or 1)), said[2] is None
    except ValueError:  # month 0, as some programs write it
        return date(int(said[1]), 1, 1), True


def numbered_folders(paths: list[Path]) -> set[Path]:
    """Folders all of whose recordings begin with the number of a track: there is a first, and few are missing."""
    numbers: dict[Path, list[int | None]] = {}
    for path in paths:
        number = NUMBER.match(path.stem)
        numbers.setdefault(path.parent, []).append(int(number[1]) % 100 if number else None)  # 101: of the first disc
    return {
        folder
        for folder, of in numbers.items()
        if len(of) > 1 and 1 in of and None not in of and max(filter(None, of)) <= 2 * len(of)
    }


def title_of(stem: str, is_numbered: bool) -> str:
    """The name of a file without a track number, unless that is all of it: "99 Luftballons" is a title."""
    return (NUMBER if is_numbered else TRACK_NUMBER).sub("", stem) or stem


def alike(path: Path) -> Path:
    """A path without its ending, the same for names that differ in case or in Unicode form alone."""
    return path.with_name(normalize("NFC", path.stem).casefold())


def beside(path: Path, name: str, found: Found) -> str | None:
    """Lyrics from the first file of the same name that has words."""
    texts = []
    files = [file for file in found.lyrics.get(alike(path), []) if file.is_file() and not file.is_symlink()]
    for file in sorted(files, key=lambda file: (LYRICS.index(file.suffix.lower()), file.stem != path.stem, file.name)):
        text = decoded(file.read_bytes())
        if text is None:
            found.skip("of lyrics in an unknown encoding (not read)", Path(name).with_name(file.name).as_posix())
        elif text.strip():
            texts.append(text.strip())
    with_words = (text for text in texts if len(texts) == 1 or plain_lyrics(pl.Series([text]))[0])
    return next(with_words, None)


def decoded(data: bytes) -> str | None:
    """Text in UTF-8, UTF-16 or UTF-32, else GB18030, in which most Chinese texts are, or Windows-1252."""
    said = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), None)
    if not said and data.count(0) > len(data) / 40:  # UTF-16 without its mark: line feeds, digits, Latin letters
        said = "utf-16-be" if data[::2].count(0) > data[1::2].count(0) else "utf-16-le"
    beyond_ascii = re.findall(rb"[\x80-\xff]+", data)
    is_latin = 2 * sum(len(run) == 1 for run in beyond_ascii) > len(beyond_ascii)  # Chinese characters are two bytes
    for encoding in [said] if said else ["utf-8", "cp1252" if is_latin else "gb18030"]:
        try:
            return data.decode(encoding).replace("\0", "")
        except UnicodeDecodeError:
            continue
    return None


def tags_of(path: Path, opened: Opened = open_file) -> Tags | None:
    """What a recording's tags say of our fields; None if it is no recording.

    mutagen reads them; of what it does not know (WebM, Matroska, INFO in WAV) FFmpeg does.
    """
    try:
        with opened(path) as file:
            texts = texts_in(file)
    except OSError:
        return None
    if texts is None:
        return None
    tags = {key: next((texts[name] for name in names if texts.get(name)), []) for key, names in NAMES.items()}
    return {key: values for key, values in tags.items() if values}


def texts_in(file: BinaryIO) -> Tags | None:
    """A recording's tags as texts by name; None if it is no recording."""
    import mutagen

    try:
        known = mutagen.File(file)
    except Exception:  # a broken tag raises many types; the sound may be good all the same
        known = None
    texts = {} if known is None or known.tags is None else texts_of(known.tags)
    if texts:
        return texts
    said = by_ffmpeg(file)
    return None if said is None and known is None else said or {}


def texts_of(tags: Any) -> Tags:
    """Tags of any kind as texts by name, in lower case; ID3 frames without their description."""
    texts: Tags = {}
    for name, value in tags.items():
        frame, _, owner = name.partition(":")
        if frame == "UFID":
            values = [value.data.decode("ascii", "replace")] if "musicbrainz" in owner else []
        elif frame == "TCON":
            values = value.genres  # "(17)" and "17" are Rock
        elif hasattr(value, "text"):
            values = [value.text] if isinstance(value.text, str) else value.text
        else:
            values = value if isinstance(value, list) else [value]
        name = frame if len(frame) == 4 and frame.isupper() else name
        plain = [part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in values]
        several = [text.strip() for joined in plain for text in joined.split("\0")]  # as APE and ID3v2.4 join them
        texts.setdefault(name.lower(), []).extend(text for text in several if text)
    return texts


def by_ffmpeg(file: BinaryIO) -> Tags | None:
    """Tags as FFmpeg reads them; None if it finds no sound."""
    from data.audio.sound_files import AudioError, metadata

    try:
        said = metadata(file)
    except AudioError:
        return None
    return {name.lower().partition("-")[0]: [value.strip()] for name, value in said.items() if value.strip()}
