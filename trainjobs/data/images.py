"""Folders of images: found, checked and decoded with Pillow. No torch here: `preflight` uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError, features

from trainjobs.api.data import Data, Images
from trainjobs.api.errors import JobError
from trainjobs.data.colours import in_srgb
from trainjobs.data.files import File, listing, locate, look, unreadable
from trainjobs.data.holdout import sides
from trainjobs.data.modes import Unusable, flat
from trainjobs.data.pictures import Picture, Seen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Those that Pillow reads only where it was built with their library.
OPTIONAL = {".avif": "avif", ".webp": "webp"}
SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"),
    *(suffix for suffix, name in OPTIONAL.items() if name in features.modules and features.check(name)),
)
CHECKED = 256  # images that `check` decodes; the others are first decoded when training prepares its data
_BLOCK = 1024  # images in memory while a folder is decoded


def image_files(source: str) -> tuple[File, ...]:
    """The images of a folder and its subfolders, by name; JobError GTJ0113 when there are none."""
    return listing(_folder(source), SUFFIXES, "images")


def decode(data: Path | bytes, size: int, channels: int, where: str = "") -> npt.NDArray[np.uint8]:
    """The pixels of `read`."""
    return read(data, size, channels, where).pixels


def read(data: Path | bytes, size: int, channels: int, where: str = "") -> Picture:
    """uint8 [channels, size, size]: turned upright, in eight bits (modes.py), transparency laid on white, scaled so that the shorter side
    fits, centre cropped, in sRGB. `data` is a file or what is in one; `where` names it in messages, a file's path where there is none.

    JobError GTJ0113, naming the file, when it is no image, or half of one, or its numbers mean nothing certain.
    """
    import numpy as np

    where = where or str(data)
    name = where.rsplit("/", 1)[-1]
    try:
        with Image.open(BytesIO(data) if isinstance(data, bytes) else data) as image:
            # A photograph of a camera may hold a second one, for its screen (MPO): nobody misses that.
            several = image.format in ("GIF", "PNG", "TIFF", "WEBP", "AVIF") and getattr(image, "is_animated", False)
            image.draft(None, (2 * size, 2 * size))  # JPEG only: decodes at 1/2, 1/4 or 1/8, several times faster
            made = flat(ImageOps.exif_transpose(image), image)
            fitted = ImageOps.fit(made.image, (size, size), Image.Resampling.LANCZOS)
            coloured, profile = in_srgb(fitted, image.info.get("icc_profile"))
            pixels = np.asarray(coloured.convert("L" if channels == 1 else "RGB"))
    except PermissionError as error:
        raise unreadable(Path(where), error) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        why = str(error).partition(", could")[0]
        raise JobError("GTJ0113", f"{name} is too large to be decoded", where=where, why=why, how="scale it down") from error
    except Unusable as error:
        raise JobError("GTJ0113", f"{name} cannot be told in colours", where=where, why=str(error), how=error.how) from error
    except Exception as error:  # decoders meet broken bytes with OSError, SyntaxError, ValueError, struct.error, EOFError, ...
        why = "no image format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise JobError("GTJ0113", f"{name} is not a readable image", where=where, why=why, how="replace or remove the file") from error
    return Picture(pixels.reshape(size, size, channels).transpose(2, 0, 1), made.deep, made.white, made.brightest, profile, several)


def decoded(files: tuple[File, ...], images: Images, where: str) -> Iterator[npt.NDArray[np.uint8]]:
    """The pixels of every file, in order, on all cores: Pillow works outside the interpreter's lock.

    JobError GTJ0113, also at the end, when there is nothing to be seen in all of them."""
    seen = Seen()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for start in range(0, len(files), _BLOCK):
            block = files[start : start + _BLOCK]
            pictures = pool.map(lambda file: read(file.path, images.size, images.channels), block)
            for file, picture in zip(block, pictures, strict=True):
                seen.add(file, picture)
                yield picture.pixels
    finally:
        pool.shutdown(cancel_futures=True)  # whoever stops waits for one picture, not for a thousand
    seen.end(where)


def found(data: Data) -> str:
    """What the folder holds, in a line; JobError GTJ0113 when training could not read it. Decodes up to CHECKED images, evenly spread."""
    there, seen = look(_folder(data.uri), SUFFIXES, "images"), Seen()
    files = there.files
    sides([file.name for file in files], data, "image")
    step = -(-len(files) // CHECKED)
    for file in files[::step]:
        seen.add(file, read(file.path, data.images.size, data.images.channels))
    seen.end(data.uri)
    notes = [*seen.words(), *there.words()]
    if any(seen.words()) and step > 1:
        notes.insert(0, f"of {len(files[::step])} looked at")
    return "; ".join([f"{len(files)} image{'s' if len(files) > 1 else ''}, {describe(data.images)}", *notes])


def describe(images: Images) -> str:
    """ "32x32 colour"."""
    return f"{images.size}x{images.size} {'grey' if images.channels == 1 else 'colour'}"


def _folder(source: str) -> Path:
    path = locate(source)
    if path.is_file():
        raise JobError(
            "GTJ0113", "data.source names a file", where=str(path), why="images are read from a folder", how="name the folder that holds it"
        )
    return path
