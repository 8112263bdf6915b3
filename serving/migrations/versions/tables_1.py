"""The tables, as those of `serving.sqlite` in SQLite.

Numbers are given by `serving.store`, not by sequences: one of these leaves gaps, and a play's number is a count. Ids
are compared byte by byte, as SQLite does, whatever the database's language.
"""

from alembic import op

revision = "1"
down_revision = None

TABLES = (
    # songs and deletions are one log: each number is of one or of the other, and none is given twice
    """
    CREATE TABLE songs (
        number BIGINT PRIMARY KEY,
        song_id TEXT COLLATE "C" NOT NULL UNIQUE,
        about TEXT NOT NULL,  -- JSON
        seconds DOUBLE PRECISION,
        added_at TEXT NOT NULL
    )
    """,
    'CREATE TABLE deletions (number BIGINT PRIMARY KEY, song_id TEXT COLLATE "C" NOT NULL)',
    "CREATE TABLE audio (song BIGINT PRIMARY KEY REFERENCES songs ON DELETE CASCADE, flac BYTEA NOT NULL)",
    "ALTER TABLE audio ALTER COLUMN flac SET STORAGE EXTERNAL",  # it is compressed already
    """
    CREATE TABLE features (
        number BIGINT PRIMARY KEY,
        song BIGINT NOT NULL REFERENCES songs ON DELETE CASCADE,
        made_by TEXT COLLATE "C" NOT NULL,
        vectors BYTEA NOT NULL,  -- safetensors
        UNIQUE (song, made_by)
    )
    """,
    """
    CREATE TABLE plays (
        number BIGINT PRIMARY KEY,
        user_id TEXT COLLATE "C" NOT NULL,
        song_id TEXT COLLATE "C" NOT NULL,  -- of an accepted song or of the catalogue
        played_at BIGINT NOT NULL,  -- microseconds since 1970, UTC
        completed BOOLEAN,  -- here and below, null: not known
        favourited BOOLEAN,
        disliked BOOLEAN,
        skipped BOOLEAN,
        source_song_id TEXT COLLATE "C"
    )
    """,
    # song_ids: JSON, of the songs that were made; of plays, those that were rejected: [row, sentence]
    """
    CREATE TABLE keys (
        key TEXT COLLATE "C" PRIMARY KEY,
        digest TEXT NOT NULL,
        song_ids TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL
    )
    """,
    "CREATE INDEX keys_by_age ON keys (at)",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in TABLES:
        op.execute(statement)
