"""Alembic migrations of the node's database. One that was released is never changed again."""
