"""Training: data, the trainer that plays games, checkpoints, metrics, pictures and reports."""
