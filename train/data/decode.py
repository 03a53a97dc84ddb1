"""One image file as pixels of a given size."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no format that starts other programs
_OF_FRAMES = ("PNG", "GIF", "WEBP", "TIFF")  # a JPEG's further frames are its preview or its depth
Box = tuple[float, float, float, float]
Crop = int | Box | None
"""What is cut out: the largest central square (None), the central square of so many pixels, or a box around an object
(left, top, width, height), in pixels of the file, as a square."""


class Decoded(NamedTuple):
    """An image as it will be used, and what its file was."""

    pixels: np.ndarray
    """uint8 [size, size, 3], RGB."""
    transparent: bool
    """Whether parts of it were, and the background shows."""
    frames: bool
    """Whether the file has further frames, which are left out."""
    width: int
    """Of the whole image, in pixels, as it is shown."""
    height: int


def decode(data: bytes, size: int, background: str = "white") -> np.ndarray:
    """One image file -> uint8 [size, size, 3], see ``decode_on``."""
    return decode_on(data, size, background).pixels


def decode_on(data: bytes, size: int, background: str, crop: Crop = None) -> Decoded:
    """One image file as RGB of ``size`` x ``size`` pixels.

    It is turned as its EXIF tag says, laid on ``background`` where it is transparent, cropped, and scaled (bicubic,
    antialiased). Of several frames the first is taken. ValueError, or another exception of PIL's, if it cannot be read
    or is smaller than its crop.
    """
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            frames = opened.format in _OF_FRAMES and getattr(opened, "is_animated", False)
            image: Image.Image = opened
            ImageOps.exif_transpose(image, in_place=True)
            image, transparent = _flat(image, background)
            width, height = image.size
            box = _square(width, height, crop)
            if (width, height) != (size, size) or box != (0, 0, size, size):
                image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
            return Decoded(np.array(image), transparent, frames, width, height)
    except UnidentifiedImageError:
        raise ValueError(f"it is no image in one of the formats {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(re.sub(r"<_io\.\w+ object at \w+>", "the file", str(error))) from error


def _square(width: int, height: int, crop: Crop) -> Box:
    """Left, top, right and bottom of what is cut out of an image of that size.

    A box becomes the square with its centre and its longer side, moved into the image, and no larger than fits there.
    """
    side: float = min(width, height)
    x, y = width / 2, height / 2  # the centre
    if isinstance(crop, int):
        if crop > side:
            raise ValueError(f"its {width} x {height} pixels hold no square of {crop}")
        side = crop
    elif crop is not None:
        left, top, across, down = crop
        if not (across > 0 and down > 0 and 0 <= left < width and 0 <= top < height):
            raise ValueError(f"its box {list(crop)} does not lie in its {width} x {height} pixels")
        side = min(side, max(across, down))
        x = min(max(left + across / 2, side / 2), width - side / 2)
        y = min(max(top + down / 2, side / 2), height - side / 2)
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _flat(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """The image in RGB on the background, and whether any of it was transparent."""
    if image.mode.startswith("I;16"):  # PIL would clip 16-bit grey at 255
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels have no fixed range (mode {image.mode})")
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image if image.mode == "RGB" else image.convert("RGB"), False
    layer = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    lowest, _ = layer.getchannel("A").getextrema()
    if lowest == 255:
        return layer.convert("RGB"), False
    canvas = Image.new("RGBA", layer.size, (*ImageColor.getcolor(background, "RGB"), 255))  # type: ignore[misc]
    canvas.alpha_composite(layer)
    return canvas.convert("RGB"), True


def _eight_bits(image: Image.Image) -> Image.Image:
    """The high bytes of 16-bit grey; the one value that a PNG may name as transparent becomes an alpha channel."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))
