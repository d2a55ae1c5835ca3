"""The model families: what truly differs between them, and nothing else."""
