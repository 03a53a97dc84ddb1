"""``python -m train.reproduce EXPERIMENT ...``: the papers' toy experiments, from training to table and pictures."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before PyTorch is imported
    from train.entry import run

    sys.exit(run("train.reproduce.__main__", lambda module: module.main(sys.argv[1:])))

from collections.abc import Callable, Sequence

from train.reproduce import mover, rates, studies, table1

EXPERIMENTS: dict[str, tuple[Callable[[Sequence[str], str], None], str]] = {
    "table1": (table1.main, "POT-GAN's Table 1 and Fig. 3: reverse KL on 8 Gaussians and on a ball, all games"),
    "mover": (mover.main, "3P-WGAN's Fig. 1: real, generated and moved points along training"),
    "studies": (studies.main, "how the tuned settings of the toys were found: one setting changed at a time"),
    "rates": (rates.main, "POT-GAN's Proposition 1: how W1 between samples falls with their number, by dimension"),
}


def main(argv: Sequence[str]) -> None:
    """Run the command line ``argv``; ValueError for a wrong one."""
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, EXPERIMENTS))
        print("usage: python -m train.reproduce EXPERIMENT [--FIELD VALUE ...]\n")
        for experiment, (_, text) in EXPERIMENTS.items():
            print(f"  {experiment:<{width}}  {text}")
        return
    if name not in EXPERIMENTS:
        raise ValueError(f"reproduce: experiment must be one of {', '.join(EXPERIMENTS)}, got {name!r}")
    EXPERIMENTS[name][0](argv[1:], f"python -m train.reproduce {name}")
