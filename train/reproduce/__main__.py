"""``python -m train.reproduce EXPERIMENT ...``: the papers' experiments, from training to table and pictures."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before PyTorch is imported
    from train.entry import run

    sys.exit(run("train.reproduce.__main__", lambda module: module.main(sys.argv[1:])))

from collections.abc import Callable, Sequence
from functools import partial

from train.reproduce import images, mover, rates, studies, table1

EXPERIMENTS: dict[str, tuple[Callable[[Sequence[str], str], None], str]] = {
    "table1": (table1.main, "POT-GAN's Table 1 and Fig. 3: reverse KL on 8 Gaussians and on a ball, all games"),
    "mover": (mover.main, "3P-WGAN's Fig. 1: real, generated and moved points along training"),
    "studies": (studies.main, "how the tuned settings of the toys were found: one setting changed at a time"),
    "rates": (rates.main, "POT-GAN's Proposition 1: how W1 between samples falls with their number, by dimension"),
    "table2": (partial(images.main, "table2"), "POT-GAN's Table 2, Figs. 4 and 5: every game on images, scored"),
    "three-player-table1": (
        partial(images.main, "three-player-table1"),
        "3P-WGAN's Table 1, Figs. 2 to 4: its rivals and its movers on images, scored",
    ),
    "f-ablation": (partial(images.main, "f-ablation"), "POT-GAN's supplement: the choice of F on images, scored"),
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
