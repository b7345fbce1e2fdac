"""What kind of data a network is for. JobError GTJ0108 where it does not go together with what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainjobs.api.errors import JobError

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def image(where: str, architecture: str, info: DataInfo) -> tuple[int, int]:
    """(channels, size) of the images; sizes are multiples of 8, by the API."""
    if info.kind != "image":
        raise mismatch(where, architecture, "images", info)
    channels, size, _ = info.shape
    return channels, size


def point(where: str, architecture: str, info: DataInfo) -> int:
    if info.kind != "point":
        raise mismatch(where, architecture, "points", info)
    return info.shape[0]


def mismatch(where: str, architecture: str, wanted: str, info: DataInfo) -> JobError:
    held = {"image": "images", "point": "points", "text": "text"}[info.kind]
    return JobError(
        "GTJ0108",
        f"{architecture} is for {wanted}, but the data are {held}",
        where=where,
        how="Choose the architecture for this kind of data, or another data.source",
    )
