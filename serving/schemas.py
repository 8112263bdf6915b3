"""What is sent to the service and what it answers: its OpenAPI description is made of these models, of those of
`serving.pictures`, of `serving.outcomes` and of `serving.about`."""

from __future__ import annotations

from datetime import date, datetime
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
PARTS = ("similar", "audience", "margins", "clusters", "outcomes", "picture", "audio")  # as /songs/ID/similar


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
TEXT = r"^[^\x00-\x1f\x7f]*$"
Stripped = StringConstraints(strip_whitespace=True, max_length=200, pattern=TEXT)
Label = Annotated[str, Stripped, AfterValidator(lambda text: text or None)]  # none where it is blank (docs/data.md)
STEPLESS = r"^(\.{0,2}[^.\x00-\x1f\x7f]|\.{3})[^\x00-\x1f\x7f]*$"  # but "." and "..", which in an address are steps
NewId = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=STEPLESS), AfterValidator(addressable)]
Line = Annotated[str, StringConstraints(max_length=500)]
Words = Annotated[str, StringConstraints(max_length=20_000)]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)]
Tags = Annotated[list[Tag], Field(max_length=50, fail_fast=True), AfterValidator(lambda tags: list(filter(None, tags)))]
Numbers = Annotated[list[Annotated[float, Field(strict=True)]], Field(max_length=8192, fail_fast=True)]
Vectors = Annotated[
    dict[Annotated[str, StringConstraints(max_length=200)], Numbers], BeforeValidator(few), Field(max_length=MOST_NAMES)
]
Ids = Annotated[list[Id], Field(max_length=100, fail_fast=True)]
Mode = Literal["i2i2u", "taste", "cat", "union", "boundary", "rank"]


class Given(BaseModel):
    """A model of what is sent: what it does not know is refused, so that a misspelt field is not lost."""

    model_config = ConfigDict(extra="forbid")
    _few = model_validator(mode="before")(few)


class About(Given):
    """Words and tags of a song."""

    title: Line | None = None
    lyrics: Words | None = None
    language: Annotated[str, StringConstraints(strip_whitespace=True, max_length=50)] | None = None
    artist_id: Label | None = None
    genres: Tags = []
    tags: Tags = []


class NewSong(About):
    """A song of a batch."""

    song_id: NewId | None = None
    released_at: date | None = Field(None, description="day of release; none: today")
    audio: str | None = Field(None, description="a recording, base64")
    features: Vectors = Field({}, description="dense fields that the caller computed")


class NewSongs(Given):
    """Songs, each judged alone."""

    songs: Annotated[list[NewSong], Field(min_length=1, max_length=100, fail_fast=True)]


class NewPlay(Given):
    """What a user did with a song."""

    user_id: Id
    song_id: Id
    played_at: datetime | None = None
    completed: StrictBool | None = Field(None, description="none, here and below: not known")
    favourited: StrictBool | None = None
    disliked: StrictBool | None = None
    skipped: StrictBool | None = None
    source_song_id: Id | None = Field(None, description="the song beside which it was recommended")


class NewPlays(Given):
    """Plays, in the order in which they happened."""

    plays: Annotated[list[NewPlay], Field(min_length=1, max_length=10_000, fail_fast=True)]


class OptOuts(Given):
    """Users who are not to be named any more, or may be again."""

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=10_000, fail_fast=True)]
    opted_out: StrictBool = Field(True, description="false: they may be named again")


FEATURES = TypeAdapter(Vectors)  # in a form


class Search(Given):
    """What songs are searched by: a text, songs that are liked, or a recording."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] | None = None
    like: Ids = Field([], description="songs that are liked: others like these are found")
    dislike: Ids = Field([], description="beside them songs that are not: others like those are not wanted")
    audio: str | None = Field(None, description="a recording, base64")
    k: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    among: Literal["all", "known", "new"] = "all"
    where: str | None = Field(None, description='condition on songs, e.g. language == "zh" and "rock" in genres')

    @model_validator(mode="after")
    def one_of_three(self) -> Search:
        """Refuse none of the three, or more than one."""
        if self.dislike and not self.like:
            raise ValueError("dislike goes with like: name at least one song that is liked")
        if (self.text is not None) + bool(self.like) + (self.audio is not None) != 1:
            raise ValueError("give one of text, like and audio")
        return self


# ------------------------------------------------------------------------------------------------- answers


class Titled(BaseModel):
    """A song by name."""

    song_id: str
    title: str | None


class SongLine(Titled):
    """A song in a list."""

    artist_id: str | None
    genres: list[str]


class SongBrief(SongLine):
    """A new song."""

    language: str | None
    tags: list[str]
    seconds: float | None
    has_audio: bool
    accepted: bool = Field(description="came by POST, and is not of the catalogue")
    added_at: str | None
    plays: int = Field(description="users who have met it since")


class Guess(BaseModel):
    """A tag guessed from the sound, or from the words where there is none: cosine."""

    label: str
    score: float


class Similar(SongLine):
    """A known song and its inner product with the new one."""

    score: float
    has_audio: bool


class SimilarSongs(BaseModel):
    """The known songs like a song, the nearest first."""

    song_id: str
    similar: list[Similar]


class FoundSong(Similar):
    """A song that was searched for, known or new, and how near it is: an inner product."""

    new: bool = Field(description="has no listeners in the model's training")


class FoundSongs(BaseModel):
    """The songs nearest to what was asked for, the nearest first."""

    by: Literal["text", "songs", "recording"]
    songs: list[FoundSong]


class NamedBy(BaseModel):
    """A channel that named a candidate, and their place in its list."""

    channel: Literal["i2i2u", "taste", "cat", "boundary"]
    rank: int


class RaisedBy(BaseModel):
    """A feature of a song and a user that raised the user's score, and how much it added."""

    feature: str
    words: str = Field(description="the feature in plain words")
    value: float | None = Field(description="of the feature; none: not known of this user")
    by: float


class Attended(Titled):
    """A song of a user's history that a network looked at, and its share of the attention."""

    share: float


class Listener(BaseModel):
    """A user of an audience, and which of the songs that they know explain it."""

    user_id: str
    rank: int
    score: float
    margin: float | None
    because: list[Titled]
    named_by: list[NamedBy] | None = Field(None, description="mode=rank: the channels whose candidate they are")
    raised_by: list[RaisedBy] | None = Field(None, description="mode=rank: what raised their score most, at most three")
    attended_to: list[Attended] | None = Field(
        None, description="mode=rank by a network: songs of their history that it looked at most, at most three"
    )


class Audience(BaseModel):
    """The first listeners of a song."""

    song_id: str
    mode: Mode
    budget: int
    gate: bool
    margin: float
    users_where: str | None
    users_total: int = Field(description="users who have not opted out, and for whom the condition holds")
    above_boundary: int | None = Field(description="of these, those whose boundary the song clears by the margin")
    users: list[Listener]


class Song(SongBrief):
    """A song, what is heard in it, and, where it has just come in, whom it is for."""

    lyrics: str | None
    guessed: list[Guess]
    similar: list[Similar] | None = None
    audience: Audience | None = None


class Songs(BaseModel):
    """A page of new songs."""

    total: int
    songs: list[SongBrief]


class BatchResult(BaseModel):
    """What became of one song of a batch, by the status that it would have had alone."""

    song_id: str | None
    status: int
    detail: str | None = None


class BatchResults(BaseModel):
    """In the order of the songs."""

    results: list[BatchResult]


class Recommended(SongLine):
    """A new song for a user."""

    margin: float
    score: float
    because: list[Titled]


class Recommendations(BaseModel):
    """New songs above a user's boundary, the furthest first."""

    user_id: str
    opted_out: bool = Field(description="then there are none")
    boundary: float
    considered: int
    songs: list[Recommended]


class User(BaseModel):
    """A user, known or come in."""

    user_id: str
    plays: int = Field(description="of the training, and since")
    opted_out: bool


class Users(BaseModel):
    """A page of users."""

    total: int
    users: list[User]


class Rejected(BaseModel):
    """A play that was not taken."""

    row: int
    detail: str


class PlaysTaken(BaseModel):
    """What became of plays."""

    accepted: int
    new_users: int = Field(description="of their users, those whom the training has not seen")
    unknown_users: int = Field(description="plays of such users that only the next training uses: no row was free")
    rejected: list[Rejected]


class OptOutsTaken(BaseModel):
    """What became of opt-outs; those of unknown users hold as soon as they come, or a model knows them."""

    changed: int = Field(description="users who had not said the same before")
    unknown_users: int


class Ready(BaseModel):
    """Whether requests are answered."""

    ready: bool
    model: str
    reload_error: str | None


class Failure(BaseModel):
    """What went wrong, in a sentence."""

    detail: str


class Complaint(BaseModel):
    """What is wrong with one part of a request."""

    loc: list[str | int]
    msg: str
    type: str


class Unusable(BaseModel):
    """What is wrong with a request: its form, part by part, or in a sentence what cannot be done with it."""

    detail: str | list[Complaint]
