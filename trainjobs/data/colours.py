"""Colours as they are meant: from the ICC profile in a picture to sRGB, which is what the networks are shown."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageCms

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
Profile = Literal["none", "converted", "ignored"]


def in_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, Profile]:
    """A picture in mode L, RGB or CMYK, in sRGB (L stays L where nothing is converted), and what became of its profile `icc`: "ignored"
    when it is broken, is for another kind of picture, or Pillow comes without Little CMS. sRGB's own profile changes nothing: "none"."""
    if not icc:
        return image, "none"
    transform = _to_srgb(icc, image.mode)
    if not isinstance(transform, ImageCms.ImageCmsTransform):
        return image, transform
    try:
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image, "ignored"
    assert converted is not None, "not in place"
    return converted, "converted"


@lru_cache(32)  # a folder has a few profiles and many pictures
def _to_srgb(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | Profile:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if "srgb" in (ImageCms.getProfileDescription(profile) or "").lower():
            return "none"
        if profile.profile.xcolor_space.strip() != SPACES[mode]:
            return "ignored"
        return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        return "ignored"
