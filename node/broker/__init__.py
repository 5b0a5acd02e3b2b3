"""The process beside the container engine: five verbs, and nothing else."""
