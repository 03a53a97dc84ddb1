"""How fast image files are decoded, and what scores cost beside their extractor, in processor seconds.

    python -m benchmarks.images IMAGES [--real SUBSET] [--samples SUBSET] [--n 10000] [--extractor efficientnet-lite2]

IMAGES: a folder, tar or zip. Decoding counts this process and the decoders, so that the rate is that of a core. The
images of one subset are scored against those of another; what an extractor takes is what its network takes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from train.data.config import DataConfig, load_images
from train.data.datasets import evenly_spaced
from train.provenance import cpu_model, version
from train.scores.config import ExtractorName, ScoreConfig
from train.scores.extractors import KINDS, Extractor, Features, load_extractor
from train.scores.images import Scorer


class Timed(Extractor):
    """An extractor that counts the processor seconds of its network."""

    def __init__(self, extractor: Extractor) -> None:
        self.__dict__.update(extractor.__dict__)
        self.seconds = 0.0

    def _pass(self, images: Tensor) -> Features:
        started = time.process_time()
        found = super()._pass(images)
        self.seconds += time.process_time() - started
        return found


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def decoding(path: str, size: int) -> str:
    """Decode the images into a cache that is thrown away."""
    with tempfile.TemporaryDirectory() as cache:
        started, processor = time.perf_counter(), processor_seconds()
        count = len(load_images(DataConfig("folder", path=path, size=size, cache=cache)))
        processor, wall = processor_seconds() - processor, time.perf_counter() - started
    return (
        f"decoding {count:,} images to {size} px: {count / processor:,.0f} a second of a core's time; {wall:.1f} s, "
        f"{count / wall:,.0f} a second"
    )


def scoring(real: Tensor, samples: Tensor, name: ExtractorName, n: int) -> str:
    """Score n samples; the real images' statistics are kept in the usual cache and are not counted."""
    timed = Timed(load_extractor(name))
    reference = min(n, len(real))
    scorer = Scorer(ScoreConfig(name, n=n, reference=reference), real, data="folder", extractor=timed)
    timed.seconds, started = 0.0, time.process_time()
    scorer.score(evenly_spaced(samples, n).split(256))
    whole = time.process_time() - started
    more = whole - timed.seconds
    return (
        f"scoring {n:,} images against {reference:,}: extractor {timed.seconds:.1f} s ({n / timed.seconds:.1f} a "
        f"second), the rest {more:.1f} s, {100 * more / timed.seconds:.1f} % of it"
    )


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__.splitlines()[0])
    parser.add_argument("images")
    parser.add_argument("--real")
    parser.add_argument("--samples")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--extractor", default="efficientnet-lite2", choices=list(KINDS))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{cpu_model()}, torch {version('torch')}, onnxruntime {version('onnxruntime')}", flush=True)
    print(decoding(options.images, options.size), flush=True)
    real, samples = (
        load_images(DataConfig("folder", path=options.images, size=options.size, subset=subset))
        for subset in (options.real, options.samples)
    )
    print(scoring(real, samples, options.extractor, options.n), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
