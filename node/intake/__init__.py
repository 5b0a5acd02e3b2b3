"""The intake process: the only one that sees who a patient is, and forgets it study by study."""
