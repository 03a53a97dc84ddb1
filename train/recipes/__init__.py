"""Settings: one file a game."""
