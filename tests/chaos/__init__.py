"""Runs that are killed or meet a full disk again and again, and what is left of them: ``python -m tests.chaos``."""
