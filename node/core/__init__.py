"""The process that decides and remembers: gates, database, audit log. No network, no engine, no identified data."""
