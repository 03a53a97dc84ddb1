"""The suites on an NVIDIA GPU: one child process measures (worker.py), its parent plans and keeps the rows (run.py)."""
