"""A package, so that `python -m tests.fuzz` finds it before a `tests` that some dependency installs."""
