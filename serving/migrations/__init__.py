"""The tables of a store in PostgreSQL, version by version (Alembic); `serving.postgres` brings a store up to date."""
