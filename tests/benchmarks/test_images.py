"""The timings of decoding and scoring are of all images, and the parts of a whole."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from PIL import Image

from benchmarks.images import main


def test_every_image_is_decoded_and_scores_are_split_into_their_parts(tmp_path, seed, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    generator = torch.Generator().manual_seed(seed)
    for part in ("a", "b"):
        Path(tmp_path / "all" / part).mkdir(parents=True)
        for i in range(16):
            pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "all" / part / f"{i}.png")
    main([str(tmp_path / "all"), "--real", "a", "--samples", "b", "--n", "12"])
    _, decoded, scored = capsys.readouterr().out.splitlines()
    assert decoded.startswith("decoding 32 images to 32 px: ")
    found = re.fullmatch(
        r"scoring 12 images against 12: extractor (\S+) s \((\S+) a second\), the rest (\S+) s, (\S+) % of it", scored
    )
    seconds, rate, rest, percent = map(float, found.groups())
    # Each figure is rounded to one place, so is off by 0.05 at most; 0.06 leaves room for the products of errors.
    assert abs(seconds - 12 / rate) < 0.06 + 0.06 * 12 / rate**2
    assert abs(percent * seconds / 100 - rest) < 0.06 + 0.06 * (percent + seconds) / 100
