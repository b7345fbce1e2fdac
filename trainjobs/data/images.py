"""Folders of images: found, checked and decoded with Pillow. No torch here: `preflight` uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from trainjobs.api.data import Data, Images
from trainjobs.api.errors import JobError
from trainjobs.data.files import File, listing, locate, unreadable
from trainjobs.data.holdout import sides

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CHECKED = 256  # images that `check` decodes; the others are first decoded when training prepares its data
_BLOCK = 1024  # images in memory while a folder is decoded


def image_files(source: str) -> tuple[File, ...]:
    """The images of a folder and its subfolders, by name; JobError GTJ0113 when there are none."""
    path = locate(source)
    if path.is_file():
        raise JobError(
            "GTJ0113", "data.source names a file", where=str(path), why="images are read from a folder", how="name the folder that holds it"
        )
    return listing(path, SUFFIXES, "images")


def decode(path: Path, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """uint8 [channels, size, size]: scaled so that the shorter side fits, centre cropped, turned upright, transparency laid on white.

    JobError GTJ0113, naming the file, when it is no image, or half of one.
    """
    import numpy as np

    try:
        with Image.open(path) as image:
            image.draft(None, (2 * size, 2 * size))  # JPEG only: decodes at 1/2, 1/4 or 1/8, several times faster
            upright = _flat(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    except PermissionError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # decoders meet broken bytes with OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        why = "no image format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise JobError(
            "GTJ0113", f"{path.name} is not a readable image", where=str(path), why=why, how="replace or remove the file"
        ) from error
    return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)


def decoded(files: tuple[File, ...], images: Images) -> Iterator[npt.NDArray[np.uint8]]:
    """`decode` of every file, in order, on all cores: Pillow works outside the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _BLOCK):
            yield from pool.map(lambda file: decode(file.path, images.size, images.channels), files[start : start + _BLOCK])


def found(data: Data) -> str:
    """What the folder holds, in a line; JobError GTJ0113 when training could not read it. Decodes up to CHECKED images, evenly spread."""
    files = image_files(data.source)
    sides([file.name for file in files], data, "image")
    step = -(-len(files) // CHECKED)
    for file in files[::step]:
        decode(file.path, data.images.size, data.images.channels)
    return f"{len(files)} image{'s' if len(files) > 1 else ''}, {describe(data.images)}"


def describe(images: Images) -> str:
    """ "32x32 colour"."""
    return f"{images.size}x{images.size} {'grey' if images.channels == 1 else 'colour'}"


def _flat(image: Image.Image) -> Image.Image:
    """The image without transparency, in eight bits."""
    if image.mode.startswith("I"):  # 16 bits; convert() would clip them at 255
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if not image.has_transparency_data:
        return image
    overlay = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay)
