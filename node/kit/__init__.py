"""The researcher's kit: projects to begin with, and made-up data with the shape of a published dataset."""
