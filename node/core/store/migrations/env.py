"""Runs migrations on the connection that `node.core.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from node.core.store.models import NodeBase

context.configure(connection=context.config.attributes["connection"], target_metadata=NodeBase.metadata)
with context.begin_transaction():
    context.run_migrations()
