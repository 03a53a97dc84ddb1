"""One image file as pixels: its size, crop, orientation, pixel format, and what shows through it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from train.data.decode import decode, decode_on


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


@pytest.mark.parametrize(("tag", "corner"), [(6, (0, -1)), (8, (-1, 0))])
def test_exif_turns_that_swap_width_and_height(tag, corner):
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:4, :4] = 255  # the upper left; on display the upper right (6: a quarter clockwise) or the lower left
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    turned = decode_on(file.getvalue(), 8, "white", (0, 0, 8, 8) if tag == 6 else (0, 4, 8, 8))
    assert (turned.width, turned.height) == (8, 12)
    assert turned.pixels[corner].tolist() == [255, 255, 255]
    assert turned.pixels[corner[::-1]].tolist() == [0, 0, 0]


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


def marked(width: int, height: int, x: int, y: int, side: int) -> bytes:
    """Black, with a white square of ``side`` pixels at (x, y)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + side, x : x + side] = 255
    return png(pixels)


def test_a_central_square_of_so_many_pixels():
    data = marked(20, 30, 6, 11, 8)
    assert (decode_on(data, 8, "white", 8).pixels == 255).all()
    assert (decode_on(data, 6, "white", 6).pixels == 255).all()
    assert decode_on(data, 10, "white", 10).pixels.min() == 0
    assert decode_on(data, 20, "white", 20)[3:] == (20, 30)
    with pytest.raises(ValueError, match="its 20 x 30 pixels hold no square of 21"):
        decode_on(data, 8, "white", 21)


@pytest.mark.parametrize(
    ("square", "box"),
    [
        ((4, 9, 8), (4, 9, 8, 8)),  # a square is taken as it is
        ((4, 9, 8), (6, 9, 4, 8)),  # a tall box about its centre
        ((4, 9, 8), (4, 12, 8, 2)),  # a wide one
        ((0, 0, 6), (0, 1, 6, 3)),  # moved into the image: about its centre it would begin at -0.5
        ((14, 24, 6), (17, 24, 3, 6)),  # at the other corner
        ((0, 5, 20), (3, 2, 10, 26)),  # no larger than the image is wide
        ((0, 10, 20), (16, 20, 90, 6)),  # a box that leaves the image
    ],
)
def test_a_box_becomes_the_square_about_its_centre_that_fits(square, box):
    left, top, side = square
    pixels = decode_on(marked(20, 30, *square), side, "white", box).pixels  # neither scaled nor shifted by half a pixel
    assert (pixels == 255).all()
    assert decode_on(marked(20, 30, left, top, side - 1), side, "white", box).pixels.min() == 0


OUTSIDE = [(20, 0, 3, 3), (0, 30, 3, 3), (-1, 0, 3, 3), (0, 0, 0, 3), (0, 0, 3, -1), (np.nan,) * 4]


@pytest.mark.parametrize("box", OUTSIDE)
def test_a_box_outside_the_image_is_refused(box):
    with pytest.raises(ValueError, match="does not lie in its 20 x 30 pixels"):
        decode_on(marked(20, 30, 0, 0, 5), 5, "white", box)


def test_an_image_of_its_size_is_not_resampled():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(decode(png(pixels), 16), pixels)
    assert np.array_equal(decode_on(png(pixels), 8, "white", 8).pixels, pixels[4:12, 4:12])
    assert (decode_on(marked(16, 16, 0, 0, 9), 16, "white", (2, 2, 2, 2)).pixels == 255).all()  # enlarged all the same


def test_of_several_frames_the_first_is_taken_and_that_is_known():
    frames = [Image.new("RGB", (8, 8), (grey, grey, grey)) for grey in (10, 200)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        several = decode_on(saved(frames[0], kind, save_all=True, append_images=frames[1:]), 8, "white")
        assert several.frames, kind
        assert np.abs(several.pixels.astype(int) - 10).max() <= 4, kind
        assert not decode_on(saved(frames[0], kind), 8, "white").frames, kind
    assert not decode_on(saved(frames[0], "JPEG"), 8, "white").frames


def test_cmyk_and_deep_colours_become_rgb():
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    for data in (saved(red.convert("CMYK"), "JPEG", quality=100), saved(red.convert("CMYK"), "TIFF")):
        assert np.abs(decode(data, 8).astype(int) - [250, 10, 10]).max() <= 4
    assert np.abs(decode(saved(red.convert("YCbCr"), "JPEG", quality=100), 8).astype(int) - [250, 10, 10]).max() <= 4
    assert set(np.unique(decode(saved(Image.new("1", (8, 8), 1)), 8))) == {255}
    assert (decode(deep_png((0x40FF, 0x8000, 0x0102)), 8) == [0x40, 0x80, 0x01]).all()  # the high bytes


def deep_png(colour: tuple[int, int, int]) -> bytes:
    """8 x 8 pixels of 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">3H", *colour) * 8
    header = chunk(b"IHDR", struct.pack(">2I5B", 8, 8, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")


def test_nothing_and_pieces_are_no_image():
    with pytest.raises(ValueError, match=r"^the file is empty$"):
        decode(b"", 8)
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)), "JPEG")
    for end in (1, 2, 10, len(whole) // 2, len(whole) - 30):
        with pytest.raises(ValueError):  # noqa: PT011 - PIL words it in many ways
            decode(whole[:end], 8)
