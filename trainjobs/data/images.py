"""Folders of images: found, checked and decoded with Pillow. No torch here: `preflight` uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError, features

from trainjobs.api.data import Images
from trainjobs.api.errors import JobError
from trainjobs.data.colours import in_srgb
from trainjobs.data.files import unreadable
from trainjobs.data.modes import Unusable, flat
from trainjobs.data.pictures import Picture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

ORIENTATION = 0x0112  # of EXIF: from 5 on width and height change places
# Those that Pillow reads only where it was built with their library.
OPTIONAL = {".avif": "avif", ".webp": "webp"}
SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"),
    *(suffix for suffix, name in OPTIONAL.items() if name in features.modules and features.check(name)),
)


def decode(data: Path | bytes, size: int | tuple[int, int], channels: int, where: str = "") -> npt.NDArray[np.uint8]:
    """The pixels of `read`."""
    return read(data, size, channels, where).pixels


def read(data: Path | bytes, size: int | tuple[int, int], channels: int, where: str = "") -> Picture:
    """uint8 [channels, size, size], or of a `size` (width, height): turned upright, in eight bits (modes.py), transparency laid on white,
    scaled so that it just covers that, centre cropped, in sRGB. `data` is a file or what is in one; `where` names it in messages, a file's
    path where there is none.

    JobError GTJ0113, naming the file, when it is no image, or half of one, or its numbers mean nothing certain.
    """
    import numpy as np

    width, height = (size, size) if isinstance(size, int) else size
    with _opened(data, where) as image:
        # A photograph of a camera may hold a second one, for its screen (MPO): nobody misses that.
        several = image.format in ("GIF", "PNG", "TIFF", "WEBP", "AVIF") and getattr(image, "is_animated", False)
        twice = 2 * max(width, height)
        image.draft(None, (twice, twice))  # JPEG only: decodes at 1/2, 1/4 or 1/8, several times faster
        made = flat(ImageOps.exif_transpose(image), image)
        fitted = ImageOps.fit(made.image, (width, height), Image.Resampling.LANCZOS)
        coloured, profile = in_srgb(fitted, image.info.get("icc_profile"))
        pixels = np.asarray(coloured.convert("L" if channels == 1 else "RGB"))
    return Picture(pixels.reshape(height, width, channels).transpose(2, 0, 1), made.deep, made.white, made.brightest, profile, several)


def sides(data: Path | bytes, where: str = "") -> tuple[int, int]:
    """(width, height) of a picture, turned upright, from its first bytes. JobError GTJ0113 when it is no image."""
    with _opened(data, where) as image:
        width, height = image.size
        turned = image.getexif().get(ORIENTATION, 1) >= 5
    return (height, width) if turned else (width, height)


@contextmanager
def _opened(data: Path | bytes, where: str) -> Iterator[Image.Image]:
    """A picture, and JobError GTJ0113 for whatever goes wrong with it in the block."""
    where = where or str(data)
    name = where.rsplit("/", 1)[-1]
    try:
        with Image.open(BytesIO(data) if isinstance(data, bytes) else data) as image:
            yield image
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


def describe(images: Images) -> str:
    """ "32x32 colour"."""
    return f"{images.size}x{images.size} {'grey' if images.channels == 1 else 'colour'}"
