"""Pillow's modes: how a picture of each becomes eight bits, grey or colour, or why it is refused.

Modes of 8 bits a channel are Pillow's own conversions. Those of more (I;16, I, F) hold numbers whose white no mode says: PNG, PGM and
16-bit files mean 65535; of 32-bit integers and floats each file is on the scale that its brightest value tells, and what is between
scales is refused, because a guess would train on black pictures without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageCms

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIXTEEN = 65535
# The whites of files, and from which brightest value on a file is taken to be on that scale: a sixteenth.
SCALES = {"integer": (255, SIXTEEN, 2**31 - 1), "float": (1, 255, SIXTEEN)}
DARKEST = 1 / 16
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0


@dataclass(frozen=True)
class Mode:
    """`kind`: whose numbers they are. `via` is the mode that Pillow converts by, for what it does not convert at once."""

    kind: Literal["eight", "lab", "sixteen", "integer", "float"]
    words: str
    via: str = ""


EIGHT = "as it is, 0 to 255"
WHITE = "laid on white"
DEEP = "0 to 65535 becomes 0 to 255; of a TIFF of 12 bits, 0 to 4095"
MODES: dict[str, Mode] = {
    "1": Mode("eight", "0 is black, 1 is white"),
    "L": Mode("eight", EIGHT),
    "LA": Mode("eight", WHITE),
    "La": Mode("eight", WHITE, "LA"),
    "P": Mode("eight", "by its palette; transparency is laid on white"),
    "PA": Mode("eight", f"by its palette, {WHITE}", "RGBA"),
    "RGB": Mode("eight", f"{EIGHT}; of 16 bits a channel the upper eight"),
    "RGBA": Mode("eight", WHITE),
    "RGBa": Mode("eight", WHITE, "RGBA"),
    "RGBX": Mode("eight", "the fourth channel is left out", "RGB"),
    "CMYK": Mode("eight", "by its ICC profile; without one, ink is taken from white"),
    "YCbCr": Mode("eight", "to RGB as JPEG does (ITU-R BT.601)", "RGB"),
    "HSV": Mode("eight", "to RGB", "RGB"),
    "LAB": Mode("lab", "CIE L*a*b* to sRGB by Little CMS; refused where Pillow comes without it"),
    "I;16": Mode("sixteen", DEEP),
    "I;16L": Mode("sixteen", DEEP),
    "I;16B": Mode("sixteen", DEEP),
    "I;16N": Mode("sixteen", DEEP),
    "I": Mode("integer", "PGM, PNG: 0 to 65535. Others: 0 to 255, 0 to 65535 or 0 to 2147483647, told by the file's brightest value"),
    "F": Mode("float", "0 to 1, 0 to 255 or 0 to 65535, told by the file's brightest value"),
}


class Unusable(ValueError):
    """A picture whose numbers mean nothing certain. `how` says how to mend the file."""

    def __init__(self, why: str, how: str) -> None:
        super().__init__(why)
        self.how = how


@dataclass(frozen=True)
class Flat:
    """A picture in mode L, RGB or CMYK, without transparency. Of more than 8 bits: what it was, the value that is white (0: all black,
    on any scale), and the brightest value there is."""

    image: Image.Image
    deep: Literal["", "16-bit", "32-bit integer", "float"] = ""
    white: int = 0
    brightest: float = 0.0


def flat(image: Image.Image, file: Image.Image) -> Flat:
    """The picture in eight bits. `file` is what it was opened as, which knows the format and its tags. Raises Unusable."""
    mode = MODES.get(image.mode)
    if mode is None:
        raise Unusable(f"its mode is {image.mode}, which is not read", "save it as an 8-bit PNG")
    if mode.kind == "lab":
        return Flat(_lab(image))
    if mode.kind != "eight":
        return _deep(image, file, mode.kind)
    if image.has_transparency_data:
        overlay = (image.convert(mode.via) if mode.via else image).convert("RGBA")
        return Flat(Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB"))
    if image.mode in ("L", "RGB", "CMYK"):
        return Flat(image)
    return Flat(image.convert(mode.via or ("L" if image.mode == "1" else "RGB")))


def _lab(image: Image.Image) -> Image.Image:
    try:
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    except ImportError as error:
        raise Unusable("its mode is LAB, and this Pillow comes without Little CMS", "save it as an 8-bit RGB PNG") from error
    assert converted is not None, "not in place"
    return converted


def _deep(image: Image.Image, file: Image.Image, kind: Literal["sixteen", "integer", "float"]) -> Flat:
    import numpy as np

    values = np.asarray(image).astype(np.float64)
    clear = image.info.get("transparency")
    seen = values if not isinstance(clear, int) else values[values != clear]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
    if kind == "sixteen" or (kind == "integer" and file.format in ("PNG", "PPM")):
        deep, white = "16-bit", 4095 if _tag(file, BITS) == (12,) else SIXTEEN
    else:
        deep, white = ("float" if kind == "float" else "32-bit integer"), scale(low, high, kind, image.mode)
    scaled = np.zeros(values.shape) if white == 0 else values * (255 / white)
    if white and _tag(file, PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts 8 bits by itself, and no more
        scaled = 255 - scaled
    if isinstance(clear, int):
        scaled[values == clear] = 255
    return Flat(Image.fromarray(_bytes(scaled)), deep, white, high)  # type: ignore[arg-type]  # one of the four


def scale(low: float, high: float, kind: Literal["integer", "float"], mode: str) -> int:
    """What is white in a file whose values are `low` to `high`; 0 when all of them are 0. Raises Unusable."""
    how = f"save it as an 8-bit or 16-bit PNG, scaled as you mean it (its mode is {mode})"
    if not (low == low and high == high and abs(low) != float("inf") and abs(high) != float("inf")):
        raise Unusable("it holds values that are no finite numbers", how)
    if low < 0:
        raise Unusable(f"its values are {low:g} to {high:g}, and what is below 0 has no colour", how)
    if high == 0:
        return 0
    for white in SCALES[kind]:
        if white * DARKEST <= high <= white:
            return white
    scales = ", ".join(f"0 to {white}" for white in SCALES[kind])
    raise Unusable(f"its values are {low:g} to {high:g}, on none of the usual scales ({scales})", how)


def _tag(file: Image.Image, number: int) -> Any:
    """A tag of a TIFF, None where there is none."""
    return getattr(file, "tag_v2", {}).get(number)


def _bytes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    import numpy as np

    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def page() -> str:
    """The reference of the modes, in Markdown."""
    lines = [
        "# Pictures of every kind",
        "",
        "What becomes of a picture's numbers, by the mode that Pillow opens it in, made from the table in `trainjobs/data/modes.py`. A",
        "picture in any other mode is refused ([GTJ0113](../errors/GTJ0113.md)), with its name and its mode.",
        "",
        "| Mode | What becomes of it |",
        "| --- | --- |",
        *(f"| `{name}` | {mode.words} |" for name, mode in MODES.items()),
        "",
        "Floats and 32-bit integers do not say what is white, so each file's brightest value tells: the file is on a scale whose white is",
        "above that value, and at most sixteen times as much. The whites are",
        f"{', '.join(map(str, SCALES['float']))} for floats and {', '.join(map(str, SCALES['integer']))} for integers.",
        "What is between scales, below 0, or no finite number is refused, and so are two files on different scales. The line that says",
        "what was found says on which scale they are, and their brightest value. A file of zeros is black on any scale.",
        "",
    ]
    return "\n".join(lines)
