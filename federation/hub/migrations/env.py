"""Alembic's entry: the connection comes from `federation.hub.database`, which is the only caller."""

from alembic import context

from federation.hub.tables import HubBase

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=HubBase.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
