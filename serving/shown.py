"""Songs, audiences and pictures as they are shown: from numbers and arrays to the words of `serving.schemas`."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data.arrays import FloatArray, IntArray
from data.audio.recordings import log_mel
from retrieval.rank_reasons import RankReasons, in_words
from retrieval.songs import Songs
from serving import answers, pictures, schemas, search
from serving.state import Gone, State

PEAKS, FRAMES = 400, 400  # columns of a picture
T = TypeVar("T")
U = TypeVar("U")


def there(items: Iterable[T], show: Callable[[T], U]) -> list[U]:
    """What `show` makes of each, without those that are of a song deleted meanwhile."""
    shown = []
    for one in items:
        with suppress(Gone):
            shown.append(show(one))
    return shown


Name = Callable[[int], dict[str, Any]]


def names(state: State) -> Name:
    """What gives a song as `Titled` has it; each is looked up once."""

    @cache
    def name(number: int) -> dict[str, Any]:
        found = state.line(number)
        return {"song_id": found["song_id"], "title": found["title"]}

    return name


def titled(name: Name, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """Songs by name; −1 is none."""
    return [name(number) for number in numbers if number >= 0]


def line(state: State, number: int) -> dict[str, Any]:
    """A song in a list, as `SongLine` has it."""
    found = state.line(number)
    return found | {"genres": [one for one in found["genres"] or [] if one]}


def brief(state: State, number: int, audio: Path | None) -> dict[str, Any]:
    """A new song, as `SongBrief` has it."""
    stored, about = state.stored(number), state.about(number)
    return {
        **line(state, number),
        "language": about.get("language"),
        "tags": [one for one in about.get("tags") or [] if one],
        "seconds": stored.seconds if stored else None,
        "has_audio": has_audio(state, number, audio),
        "accepted": stored is not None,
        "added_at": stored.added_at if stored else None,
        "plays": state.first_plays(number),
    }


def song(state: State, number: int, audio: Path | None) -> schemas.Song:
    """A song and the tags guessed of it."""
    model, stored = state.model, state.stored(number)
    features = stored.features if stored else {name: np.array(dense[number]) for name, dense in model.dense.items()}
    known = model.encoder.widths.keys() <= features.keys()
    guessed = [schemas.Guess(**one) for one in model.encoder.guess(features)] if known else []
    return schemas.Song(**brief(state, number, audio), lyrics=state.about(number).get("lyrics"), guessed=guessed)


def matching(state: State, query: str) -> list[int]:
    """New songs whose title, id, artist or genre has `query` in it, the newest first."""
    words, model = query.lower(), state.model

    def has(number: int) -> bool:
        about = state.about(number)
        texts = [state.song_id(number), about.get("title"), about.get("artist_id"), *(about.get("genres") or [])]
        return any(words in text.lower() for text in texts if text)

    with state.lock:
        numbers = list(reversed(state.accepted))
    accepted = there(numbers, lambda number: number if not words or has(number) else None)
    of_catalogue = model.new[model.new_texts.str.contains(words, literal=True).to_numpy()] if words else model.new
    return [number for number in accepted if number is not None] + of_catalogue[::-1].tolist()


def briefs(state: State, numbers: Iterable[int], audio: Path | None) -> list[schemas.SongBrief]:
    """New songs in a list."""
    return there(numbers, lambda number: schemas.SongBrief(**brief(state, number, audio)))


def similar(
    state: State,
    number: int,
    k: int,
    audio: Path | None,
    among: str = "known",
    of: Songs | None = None,
    where: str | None = None,
) -> list[schemas.Similar]:
    """The known songs like a song, or the new ones; `of` and `where` as in `answers.similar_songs`."""
    return [
        schemas.Similar(**line(state, int(one)), score=float(score), has_audio=has_audio(state, int(one), audio))
        for one, score in zip(*answers.similar_songs(state, number, k, among, of, where), strict=True)
    ]


def found(state: State, by: search.By, numbers: IntArray, scores: FloatArray, audio: Path | None) -> schemas.FoundSongs:
    """Songs that were searched for."""
    new = set(state.model.new.tolist())

    def show(place: int) -> schemas.FoundSong:
        number, score = int(numbers[place]), float(scores[place])
        known = number < state.model.n_songs and number not in new
        return schemas.FoundSong(
            **line(state, number), score=score, has_audio=has_audio(state, number, audio), new=not known
        )

    return schemas.FoundSongs(by=by, songs=there(np.flatnonzero(numbers >= 0).tolist(), show))


def audience(
    state: State,
    number: int,
    mode: Any,
    budget: int,
    gate: bool,
    margin: float,
    users_where: str | None = None,
    of: Songs | None = None,
) -> schemas.Audience:
    """The first listeners of a song, of users for whom a condition holds; `of` as `answers.song_of` makes it of the
    condition, where it is made."""
    of = of or answers.song_of(state, number, users_where)
    found, name = answers.audience(state, number, mode, budget, gate, margin, of), names(state)
    of_users = found.users_B, found.scores_B, found.margins_B, found.because_BT
    users = [
        {
            "user_id": state.user_id(user),
            "rank": rank,
            "score": score,
            "margin": None if math.isnan(above) else above,
            "because": titled(name, because),
            **({} if found.reasons is None else ranked_by(name, found.reasons, rank - 1)),
        }
        for rank, (user, score, above, because) in enumerate(zip(*(one.tolist() for one in of_users), strict=True), 1)
    ]
    return schemas.Audience.model_validate(
        {
            "song_id": state.song_id(number), "mode": mode, "budget": budget, "gate": gate, "margin": margin,
            "users_where": users_where, "users_total": found.users, "above_boundary": found.above, "users": users,
        }
    )  # fmt: skip


def ranked_by(name: Name, reasons: RankReasons, place: int) -> dict[str, Any]:
    """Why the user at a place of a ranked audience of one song is there, as `Listener` has it."""
    named = zip(reasons.channels, reasons.rank_CBM[0, place].tolist(), strict=True)
    rows = [one[0, place].tolist() for one in (reasons.feature_CBT, reasons.value_CBT, reasons.raised_CBT)]
    raised = [(reasons.names[feature], value, by) for feature, value, by in zip(*rows, strict=True) if feature >= 0]
    attended = None
    if reasons.song_CBT is not None and reasons.share_CBT is not None:
        songs, shares = (one[0, place].tolist() for one in (reasons.song_CBT, reasons.share_CBT))
        attended = [song | {"share": share} for song, share in zip(titled(name, songs), shares, strict=False)]
    return {
        "attended_to": attended,
        "named_by": [{"channel": channel, "rank": rank} for channel, rank in named if rank],
        "raised_by": [
            {"feature": feature, "words": in_words(feature), "value": None if math.isnan(value) else value, "by": by}
            for feature, value, by in raised
        ],
    }


def user(state: State, row: int) -> schemas.User:
    """A user in a list."""
    start_U, since = state.model.plays.start_U, len(state.played.get(row, ()))
    plays = int(start_U[row + 1] - start_U[row]) + since
    return schemas.User(user_id=state.user_id(row), plays=plays, opted_out=bool(state.is_out_U[row]))


def recommended(state: State, user: int, k: int, margin: float) -> tuple[list[dict[str, Any]], int]:
    """New songs above a user's boundary, as `Recommended` has them, and of how many."""
    numbers, margins, because, considered = answers.recommendations(state, user, k, margin)
    boundary, name = float(state.model.boundary_U[user]), names(state)

    def show(row: tuple[int, float, list[int]]) -> dict[str, Any]:
        number, above, heard = row
        about = {"margin": above, "score": above + boundary, "because": titled(name, heard)}
        return line(state, number) | about

    rows = zip(numbers.tolist(), margins.tolist(), because.tolist(), strict=True)
    return there(rows, show), considered


def has_audio(state: State, number: int, audio: Path | None) -> bool:
    """Whether a song has a recording; of the catalogue's it is not looked whether the file is there."""
    stored = state.stored(number)
    return stored.seconds is not None if stored else audio is not None and audio_name(state, number) is not None


def audio_name(state: State, number: int) -> str | None:
    """Where the recording of a song of the catalogue is said to be, within the audio folder; None without one."""
    songs = state.model.songs
    name: str | None = songs.item(number, "audio_path") if "audio_path" in songs.columns else None
    return name or None


def audio_path(state: State, number: int, audio: Path | None) -> Path | None:
    """The recording of a song of the catalogue, which must lie in the audio folder."""
    name = audio_name(state, number)
    if audio is None or name is None:
        return None
    try:
        return audio / name if (audio / name).resolve().is_relative_to(audio.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # a link to itself; a name that none can be
        return None


def picture(wave: FloatArray, audio: dict[str, Any]) -> pictures.Picture:
    """Peaks and log-mel of a recording.

    Args:
        wave: mono samples.
        audio: sample_rate, n_mels, win_length, hop_length.
    """
    edges = np.linspace(0, len(wave), PEAKS + 1).astype(int)[:-1]
    peaks = np.maximum.reduceat(np.abs(wave), np.minimum(edges, len(wave) - 1)).clip(0, 1)
    shape = [int(audio[name]) for name in ("sample_rate", "n_mels", "win_length", "hop_length")]
    frames_TM = log_mel(wave, *shape)
    starts = np.unique(np.linspace(0, len(frames_TM), min(FRAMES, len(frames_TM)) + 1).astype(int)[:-1])
    frames_TM = np.add.reduceat(frames_TM, starts) / np.diff(np.append(starts, len(frames_TM)))[:, None].astype("f4")
    low, high = np.percentile(frames_TM, [5, 99.9])
    shades = (255 * (frames_TM - low) / max(high - low, 1e-6)).clip(0, 255).astype(np.uint8)
    data = base64.b64encode(shades.tobytes()).decode()
    spectrogram = pictures.Spectrogram(frames=len(shades), bands=shades.shape[1], data=data)
    return pictures.Picture(
        seconds=len(wave) / shape[0], waveform=[round(float(one), 4) for one in peaks], spectrogram=spectrogram
    )
