"""One image file as pixels: its size, crop, orientation, pixel format, and what shows through it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from train.data.decode import decode


def png(pixels: np.ndarray) -> bytes:
    return saved(Image.fromarray(pixels))


def test_size_and_centre_crop():
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:, 6:14] = 200  # the central square
    assert (decode(png(pixels), 8) == 200).all()
    assert (decode(png(pixels.transpose(1, 0, 2)), 8) == 200).all()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    # antialiased reduced stripes are grey, 127.5 up to rounding in PIL's two passes; picking pixels gives 0 or 255
    assert np.abs(decode(png(stripes), 8)[:, 1:-1].astype(float) - 127.5).max() <= 2
    assert decode(png(np.full((3, 5, 3), 33, np.uint8)), 16).tolist() == np.full((16, 16, 3), 33).tolist()


def test_every_pixel_format_becomes_rgb():
    grey = np.full((8, 8), 90, np.uint8)
    assert (decode(png(grey), 8) == 90).all()
    assert (decode(png(grey.astype(np.uint16) * 256 + 3), 8) == 90).all()  # 16 bits: the high byte
    assert (decode(png(np.dstack([grey] * 3 + [grey * 0 + 255])), 8) == 90).all()
    palette = io.BytesIO()
    Image.fromarray(np.dstack([grey] * 3)).quantize(4).save(palette, "GIF")
    assert np.abs(decode(palette.getvalue(), 8).astype(int) - 90).max() <= 4  # GIF's palette is quantised
    real = io.BytesIO()
    Image.fromarray(grey.astype(np.float32)).save(real, "TIFF")
    with pytest.raises(ValueError, match="mode F"):
        decode(real.getvalue(), 8)


def test_exif_rotation_is_applied():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # a white upper half, stored for display after a turn by 180 degrees
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    turned = decode(file.getvalue(), 8)
    assert (turned[:4] == 0).all()
    assert (turned[4:] == 255).all()


RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def half_clear() -> Image.Image:
    """Left half opaque blue, right half red that nobody should see."""
    image = Image.new("RGBA", (32, 32), (*BLUE, 255))
    image.paste((*RED, 0), (16, 0, 32, 32))
    return image


def transparent_files() -> dict[str, bytes]:
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([*RED, *BLUE] + [0] * 762)
    palette.paste(0, (16, 0, 32, 32))
    rgb = Image.new("RGB", (32, 32), BLUE)
    rgb.paste(RED, (16, 0, 32, 32))
    return {
        "RGBA": saved(half_clear()),
        "palette": saved(palette, transparency=0),
        "RGB with a transparent colour": saved(rgb, transparency=RED),
        "GIF": saved(palette, "GIF", transparency=0),
        "WebP": saved(half_clear(), "WEBP", lossless=True, exact=True),
    }


@pytest.mark.parametrize("kind", list(transparent_files()))
@pytest.mark.parametrize(("background", "colour"), [("white", (255, 255, 255)), ("#102030", (16, 32, 48))])
def test_transparent_parts_show_the_background(kind, background, colour):
    pixels = decode(transparent_files()[kind], 32, background)
    assert pixels[5, 30].tolist() == list(colour)
    assert pixels[5, 2].tolist() == list(BLUE)


def test_transparent_grey_shows_the_background():
    clear = np.full((8, 8), 77, np.uint8)
    assert (decode(saved(Image.fromarray(np.dstack([clear, clear * 0]), "LA")), 8) == 255).all()
    assert (decode(saved(Image.fromarray(clear), transparency=77), 8) == 255).all()
    deep = Image.fromarray(clear.astype(np.uint16) * 256)
    assert (decode(saved(deep, transparency=77 * 256), 8) == 255).all()
    assert (decode(saved(deep, transparency=77 * 256 + 1), 8) == 77).all()


def test_a_half_transparent_colour_is_mixed_with_the_background():
    image = Image.new("RGBA", (8, 8), (*RED, 128))
    assert decode(saved(image), 8)[0, 0].tolist() == [255, 127, 127]  # 255 * (1 - 128 / 255)
    assert decode(saved(image), 8, "black")[0, 0].tolist() == [128, 0, 0]
