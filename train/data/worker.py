"""A decoder's side of ``train.data.decoders``: image files in, pixels out. Without PyTorch, so that it starts fast.

A request is a line of JSON, ``[size, background, [[file or null, bytes, crop], ...]]``, and then the bytes of the
images that are in no file of their own. A reply is a line of JSON, for each image its facts or why it cannot be read,
and then the pixels of those that can.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import numpy as np
from PIL import Image

from train.data.archives import ArchiveError, read_file
from train.data.decode import Crop, Decoded, decode_on

READY = b"ready\n"
Outcome = Decoded | str
"""An image, or why there is none."""


@contextmanager
def strict() -> Iterator[None]:
    """Within the block an image beyond PIL's limit is an error, and odd metadata are no concern of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def attempt(read: Callable[[], bytes], size: int, background: str, crop: Crop) -> Outcome:
    """The image in what ``read`` gives. ArchiveError passes through: nothing after it can be read."""
    try:
        return decode_on(read(), size, background, crop)
    except ArchiveError:
        raise
    except Exception as error:  # a damaged image can raise nearly anything; its frames would hold the file
        return str(error) or type(error).__name__


def main() -> None:
    """Answer requests on the standard input until it ends, as it does when the parent dies."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    try:
        with strict():
            _serve(replies)
    except BrokenPipeError:  # nobody waits for the reply; at an ordinary end it would be tried once more
        os._exit(1)


def _serve(replies: BinaryIO) -> None:
    replies.write(READY)
    replies.flush()
    while (line := sys.stdin.buffer.readline()).endswith(b"\n"):
        size, background, asked = json.loads(line)
        facts: list[str | tuple[bool, bool, int, int]] = []
        pixels: list[bytes] = []
        for file, count, crop in asked:
            read = partial(sys.stdin.buffer.read, count) if file is None else partial(read_file, file)
            outcome = attempt(read, size, background, tuple(crop) if isinstance(crop, list) else crop)
            if isinstance(outcome, Decoded):
                facts.append(outcome[1:])
                pixels.append(np.ascontiguousarray(outcome.pixels).tobytes())
            else:
                facts.append(outcome)
        replies.write(json.dumps(facts).encode() + b"\n")
        replies.writelines(pixels)
        replies.flush()
