"""Pictures of all kinds that are read, each with the pixels that it has in colour."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from tests.training.data.folders import png, saved

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 10, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (12, 10, 1), np.uint8)
# Of 16 bits the upper 8 count.
DEEP = RNG.integers(0, 2**16, (12, 10, 4), np.uint16)
PHOTO = Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.BICUBIC)
GREY = Image.fromarray(COLOUR).convert("L")


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha / 255.0
    return np.floor(colour * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def in_colour(contents: bytes) -> np.ndarray:
    """What Pillow sees."""
    with Image.open(io.BytesIO(contents)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(PHOTO, "JPEG", exif=exif)


def animation() -> bytes:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


def in_palette(**options: int) -> bytes:
    return saved(Image.fromarray(COLOUR).quantize(16), "PNG", **options)


JPEGS = {
    "chroma": saved(PHOTO, "JPEG", quality=60),
    "all of chroma": saved(PHOTO, "JPEG", quality=95, subsampling=0),
    "progressive": saved(PHOTO, "JPEG", progressive=True),
    "grey": saved(PHOTO.convert("L"), "JPEG"),
    "several pictures": saved(PHOTO, "MPO", save_all=True, append_images=[PHOTO]),
    **{f"orientation {number}": turned(number) for number in range(1, 10)},
}
PNGS = {
    "colour": (png(COLOUR), COLOUR),
    "16-bit colour": (png(DEEP[..., :3]), DEEP[..., :3] >> 8),
    "16-bit RGBA": (png(DEEP), on_white(*np.split(DEEP >> 8, (3,), axis=-1))),
    "16-bit grey": (png(DEEP[..., :1]), DEEP[..., [0, 0, 0]] >> 8),
    "RGBA": (png(np.dstack([COLOUR, ALPHA])), on_white(COLOUR, ALPHA)),
    "grey with alpha": (
        png(np.dstack([COLOUR[..., 0], ALPHA])),
        on_white(COLOUR[..., [0, 0, 0]], ALPHA),
    ),
    "one level of grey is transparent": (
        png(COLOUR[..., :1], (b"tRNS", struct.pack(">H", COLOUR[0, 0, 0]))),
        np.where(
            COLOUR[..., :1] == COLOUR[0, 0, 0], np.uint8(255), COLOUR[..., [0, 0, 0]]
        ),
    ),
    "palette": (in_palette(), in_colour(in_palette())),
    "palette with transparency": (
        in_palette(transparency=3),
        np.asarray(
            Image.alpha_composite(
                Image.new("RGBA", (10, 12), "white"),
                Image.open(io.BytesIO(in_palette(transparency=3))).convert("RGBA"),
            ).convert("RGB")
        ),
    ),
    "black and white": (
        saved(GREY.convert("1"), "PNG"),
        in_colour(saved(GREY.convert("1"), "PNG")),
    ),
    "animation": (animation(), COLOUR),
    "long text": (
        png(COLOUR, (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 * 2**20)))),
        COLOUR,
    ),
    "interlaced or not, of one pixel": (png(COLOUR[:1, :1]), COLOUR[:1, :1]),
}
CASES: dict[str, tuple[bytes, np.ndarray]] = {
    **{name: (contents, in_colour(contents)) for name, contents in JPEGS.items()},
    **PNGS,
}
