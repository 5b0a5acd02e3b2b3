"""The node's database: typed models, migrations, and the one API through which core reads and writes."""
