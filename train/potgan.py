"""POT-GAN from data to samples: ``python train/potgan.py --preset ring8``, the same as ``python -m train potgan``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the checkout, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from train.entry import run  # before PyTorch is imported

    sys.exit(run("train.cli", lambda cli: cli.play_game("potgan", sys.argv[1:], "python train/potgan.py")))
