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


class CurvePoint(BaseModel):
    """An operating point: the share of users above it, and how likely one at it likes the song (null: unknown)."""

    margin: float
    reached: float
    liked: float | None


class Margins(BaseModel):
    """How far a song clears users' boundaries."""

    song_id: str
    users: int
    above: int
    edges: list[float]
    counts: list[int]
    curve: list[CurvePoint]


class Point(BaseModel):
    """A place in the picture."""

    x: float
    y: float


class UserPoint(Point):
    """A user in the picture."""

    user_id: str
    cluster: int


class GenreShare(BaseModel):
    """How much of a listening is of a genre."""

    genre: str
    share: float


class Centroid(Point):
    """The middle of a cluster."""

    size: int
    genres: list[GenreShare]


class Clusters(BaseModel):
    """The users that CAT starts from."""

    song_id: str
    song: Point
    points: list[UserPoint]
    centroids: list[Centroid]


class Spectrogram(BaseModel):
    """`data`: base64 of frames × bands bytes, low bands first."""

    frames: int
    bands: int
    data: str


class Picture(BaseModel):
    """How a recording looks: peaks from 0 to 1, and log-mel."""

    seconds: float
    waveform: list[float]
    spectrogram: Spectrogram


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
