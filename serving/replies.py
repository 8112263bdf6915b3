"""What the service answers, in pydantic's words: its OpenAPI description is made of these and of `serving.schemas`."""

from __future__ import annotations

from pydantic import BaseModel, Field

from serving.schemas import Mode


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


class Listener(BaseModel):
    """A user of an audience, and which of the songs that he knows explain it."""

    user_id: str
    rank: int
    score: float
    margin: float | None
    because: list[Titled]


class Audience(BaseModel):
    """The first listeners of a song."""

    song_id: str
    mode: Mode
    budget: int
    gate: bool
    margin: float
    users_total: int
    above_boundary: int | None = Field(description="users whose boundary the song clears by the margin")
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
    boundary: float
    considered: int
    songs: list[Recommended]


class User(BaseModel):
    """A known user."""

    user_id: str
    plays: int


class Users(BaseModel):
    """A page of users."""

    total: int
    users: list[User]


class Rejected(BaseModel):
    """A play that was not taken."""

    row: int
    detail: str


class PlaysTaken(BaseModel):
    """What became of plays; those of unknown users are kept for the next training."""

    accepted: int
    unknown_users: int
    rejected: list[Rejected]


class ModelInfo(BaseModel):
    """What is serving."""

    version: str
    clip: str | None
    encoder: str
    boundary: str | None
    modes: list[Mode]
    users: int
    known_songs: int
    new_songs: int
    accepted_songs: int
    plays_received: int
    labels: list[str]
    audio_seconds: float
    max_upload_mb: float
    reload_error: str | None


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
