"""What is sent to the service, in pydantic's words. What it answers is in `serving.replies`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

MOST_NAMES = 32  # of one object
PARTS = ("similar", "audience", "margins", "clusters", "picture", "audio")  # of a song, as /songs/ID/similar


def few(given: Any) -> Any:
    """An object, if it has few names: each wrong one is a complaint of its own, and a request has room for millions.

    For the same reason the first wrong item of a list is the last that is looked at (`fail_fast`).
    """
    if isinstance(given, dict) and len(given) > MOST_NAMES:
        raise ValueError(f"at most {MOST_NAMES} names are taken")
    return given


def addressable(song_id: str) -> str:
    """An id that is no other song's address; the catalogue's own, which may be, cannot be helped."""
    if song_id.endswith(tuple(f"/{part}" for part in PARTS)):
        raise ValueError(f"an id cannot end in {' or '.join(f'/{part}' for part in PARTS)}")
    return song_id


Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
STEPLESS = r"^(\.{0,2}[^.\x00-\x1f\x7f]|\.{3})[^\x00-\x1f\x7f]*$"  # but "." and "..", which in an address are steps
NewId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=STEPLESS), AfterValidator(addressable)]
Line = Annotated[str, StringConstraints(max_length=500)]
Words = Annotated[str, StringConstraints(max_length=20_000)]
Tags = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=100)]], Field(max_length=50, fail_fast=True)
]
Numbers = Annotated[list[Annotated[float, Field(strict=True)]], Field(max_length=8192, fail_fast=True)]
Vectors = Annotated[
    dict[Annotated[str, StringConstraints(max_length=200)], Numbers], BeforeValidator(few), Field(max_length=MOST_NAMES)
]
Mode = Literal["i2i2u", "taste", "cat", "union", "boundary"]


class Given(BaseModel):
    """A model of what is sent: what it does not know is refused, so that a misspelt field is not lost."""

    model_config = ConfigDict(extra="forbid")
    _few = model_validator(mode="before")(few)


class About(Given):
    """Words and tags of a song."""

    title: Line | None = None
    lyrics: Words | None = None
    language: Annotated[str, StringConstraints(max_length=50)] | None = None
    artist_id: Id | None = None
    genres: Tags = []
    tags: Tags = []


class NewSong(About):
    """A song of a batch."""

    song_id: NewId | None = None
    audio: str | None = Field(None, description="a recording, base64")
    features: Vectors = Field({}, description="dense fields that the caller computed himself")


class NewSongs(Given):
    """Songs, each judged alone."""

    songs: Annotated[list[NewSong], Field(min_length=1, max_length=100, fail_fast=True)]


class NewPlay(Given):
    """What a user did with a song."""

    user_id: Id
    song_id: Id
    played_at: datetime | None = None
    completed: StrictBool = False
    favourited: StrictBool = False
    disliked: StrictBool = False
    skipped: StrictBool = False
    source_song_id: Id | None = Field(None, description="the song beside which it was recommended")


class NewPlays(Given):
    """Plays, in the order in which they happened."""

    plays: Annotated[list[NewPlay], Field(min_length=1, max_length=10_000, fail_fast=True)]


FEATURES = TypeAdapter(Vectors)  # in a form
