"""What a folder of pictures turned out to be, picture by picture: what is told of it, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trainjobs.api.errors import JobError
from trainjobs.data.colours import Profile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Picture:
    """`pixels` is uint8 [channels, size, size]; the rest says what it was made of (see modes.Flat)."""

    pixels: npt.NDArray[np.uint8]
    deep: str = ""
    white: int = 0
    brightest: float = 0.0
    profile: Profile = "none"
    several: bool = False  # the file holds more pictures; this is the first


@dataclass
class Seen:
    """The pictures that were looked at so far."""

    scales: dict[tuple[str, int], tuple[int, float, str]] = field(default_factory=dict)  # how many, the brightest, the first of them
    profiles: Counter[Profile] = field(default_factory=Counter)
    several: int = 0
    low: int = 255
    high: int = 0

    def add(self, where: str, picture: Picture) -> None:
        """`where` names the picture. JobError GTJ0113 when floats, or 32-bit integers, are on another scale than those before."""
        self.low, self.high = min(self.low, int(picture.pixels.min())), max(self.high, int(picture.pixels.max()))
        self.several += picture.several
        self.profiles[picture.profile] += 1
        if not picture.white:
            return
        count, brightest, first = self.scales.get((picture.deep, picture.white), (0, 0.0, where))
        self.scales[picture.deep, picture.white] = count + 1, max(brightest, picture.brightest), first
        for (deep, white), (_, _, other) in self.scales.items():
            if picture.deep == deep != "16-bit" and white != picture.white:
                raise JobError(
                    "GTJ0113",
                    f"two {deep} pictures are on different scales",
                    where=where,
                    why=f"its values reach {picture.brightest:g}, so white is {picture.white}; in {_name(other)} white is {white}",
                    how="save all of them on one scale, best as 8-bit or 16-bit PNG",
                )

    def end(self, where: str) -> None:
        """JobError GTJ0113 when all of it is one and the same number: black, white or a grey."""
        if self.low >= self.high:
            value = {0: "black", 255: "white"}.get(self.low, f"the one grey of {self.low}")
            raise JobError(
                "GTJ0113",
                "there is nothing to learn from the pictures",
                where=where,
                why=f"every pixel of every picture that was looked at is {value}",
                how="look at a picture with its values: they may be masks, or on a scale that does not fit; save them as 8-bit PNG",
            )

    def words(self) -> Iterator[str]:
        """What people would not expect of the pictures, part by part."""
        for (deep, white), (count, brightest, _) in self.scales.items():
            yield f"{count} {deep}, scaled from 0 to {white} (the brightest value is {brightest:g})"
        if count := self.profiles["converted"]:
            yield f"{count} converted to sRGB by their ICC profiles"
        if count := self.profiles["ignored"]:
            yield f"ICC profiles of {count} ignored, as they cannot be used"
        if self.several:
            yield f"of {self.several} with several pictures the first"


def _name(where: str) -> str:
    return where.rpartition("/")[2]
