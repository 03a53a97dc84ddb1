"""Training: data, the trainer that plays games, checkpoints, metrics, pictures and reports."""

import os

# An idle thread of PyTorch's OpenMP pool spins for some 10 ms by default, on a core that scipy's assignments could
# have: ten `assignment` runs on two cores of an AMD EPYC take 32 ms an iteration with that and 24 ms without; the other
# games take as long either way (2026-11-25). libgomp reads this when PyTorch is first imported, so later is too late.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
