"""One image file as pixels of a given size."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # no format that starts other programs


def decode(data: bytes, size: int, background: str = "white") -> np.ndarray:
    """One image file -> uint8 [size, size, 3], see ``decode_on``."""
    return decode_on(data, size, background)[0]


def decode_on(data: bytes, size: int, background: str) -> tuple[np.ndarray, bool]:
    """One image file -> uint8 [size, size, 3], and whether parts of it were transparent.

    It is turned as its EXIF tag says, laid on ``background`` where it is transparent, scaled (bicubic, antialiased) so
    that its shorter side has ``size`` pixels, and cropped to its centre. ValueError, or
    another exception of PIL's, if it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            image: Image.Image = opened
            ImageOps.exif_transpose(image, in_place=True)
            image, transparent = _flat(image, background)
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            return np.array(image.resize((size, size), Image.Resampling.BICUBIC, box=box)), transparent
    except UnidentifiedImageError:
        raise ValueError(f"it is no image in one of the formats {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(re.sub(r"<_io\.\w+ object at \w+>", "the file", str(error))) from error


def _flat(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """The image in RGB on the background, and whether any of it was transparent."""
    if image.mode.startswith("I;16"):  # PIL would clip 16-bit grey at 255
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels have no fixed range (mode {image.mode})")
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image.convert("RGB"), False
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
