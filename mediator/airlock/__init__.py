"""Gate 2 for tables: what an analysis left is checked, then people review it, then it may leave."""
