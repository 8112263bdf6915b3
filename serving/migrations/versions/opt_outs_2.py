"""What users have said of being named, as in `serving.sqlite`: the last row of a user holds."""

from alembic import op

revision = "2"
down_revision = "1"

TABLES = (
    """
    CREATE TABLE opt_outs (
        number BIGINT PRIMARY KEY,
        user_id TEXT COLLATE "C" NOT NULL,
        opted_out BOOLEAN NOT NULL,
        at BIGINT NOT NULL  -- microseconds since 1970, UTC
    )
    """,
    "CREATE INDEX opt_outs_by_user ON opt_outs (user_id, number)",
)


def upgrade() -> None:
    """Make the table."""
    for statement in TABLES:
        op.execute(statement)
