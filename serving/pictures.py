"""What the service answers for pictures: of margins, of clusters of taste, of recordings."""

from __future__ import annotations

from pydantic import BaseModel


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
    calibration: tuple[float, float] | None  # σ(slope · margin + intercept) is `liked`, at any margin
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
