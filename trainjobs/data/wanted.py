"""What a job wants to know of its pictures: their class, their caption. No torch here."""

from __future__ import annotations

from collections.abc import Collection

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.captions import LONGEST

ROLE = {"class": "label", "text": "caption"}  # what diffusion.conditioning.type asks for


def carried(spec: Spec) -> frozenset[str]:
    """The roles that its batches carry; an objective of the user's own gets what there is."""
    if spec.custom:
        return frozenset(ROLE.values())
    if spec.language is not None and not spec.reads_text:
        return frozenset(["caption"])
    if spec.diffusion and spec.diffusion.pretrained:
        return frozenset(["caption"] if spec.diffusion.adapted.captioned else [])
    conditioning = spec.diffusion.conditioning if spec.diffusion else None
    if spec.gan and spec.gan.conditional:
        return frozenset([ROLE["class"]])
    return frozenset([ROLE[conditioning.type]] if conditioning else [])


def longest(spec: Spec) -> int:
    """Bytes of a caption in a batch."""
    conditioning = spec.diffusion.conditioning if spec.diffusion else None
    return conditioning.length if conditioning and conditioning.type == "text" else LONGEST


def refuse_missing(spec: Spec, there: Collection[str], columns: str) -> None:
    """JobError GTJ0113 where the data says nothing of what a model is conditioned on. `columns` are those that it has, in words."""
    if spec.custom or not (missing := carried(spec) - set(there)):
        return
    (role,) = missing
    how = {
        "label": "name the column in data.columns.label, or where folders are classes write data.labels: folder",
        "caption": "name the column in data.columns.caption, or write photo.txt beside each photo.png",
    }[role]
    asking = (
        "gan.conditional asks for" if spec.gan else "diffusion.conditioning.type asks for" if spec.diffusion else "language.task asks for"
    )
    asking = "a pretrained pipeline learns of" if spec.diffusion and spec.diffusion.pretrained else asking
    what = f"the pictures have no {role}s, and {asking} them"
    raise JobError("GTJ0113", what, where=spec.data.uri, why=f"of the data is known: {columns}", how=how)
