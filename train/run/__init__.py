"""A run: its configuration, the loop that plays it, its checkpoints, log and outputs."""
