"""Training: ``python -m train GAME`` and ``python train/potgan.py``."""
