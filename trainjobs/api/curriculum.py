"""What is learned first: the easiest samples, or small pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt
from trainjobs.api.only import only
from trainjobs.api.rule import Breach, Rule

RANKED = ("column", "length")


class Curriculum(Model):
    """Easy things first. It is over after `steps`; from there on the order is that without a curriculum."""

    by: Literal["column", "length", "resolution"] = Field(
        description="column: by a number that each picture has, the lowest first. length: records of a language model, those with the "
        "fewest tokens to learn first. resolution: pictures of `size` pixels first, then of data.images.size [curriculum_type]."
    )
    column: Annotated[Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")] | None, only(by="column")] = Field(
        None, description="The column of the data that holds the number: the lower, the easier."
    )
    start: Annotated[float, Field(gt=0, le=1), only(by=RANKED)] = Field(
        0.1,
        description="Share of the samples, the easiest, that the first step draws from; it rises linearly to all of them (Platanios "
        "et al., 2019) [c0].",
    )
    size: Annotated[Literal[4, 8, 16, 32, 64, 128], only(by="resolution")] = Field(
        16, description="Height and width of the pictures at first, in pixels; less than data.images.size [min_difficulty]."
    )
    steps: PositiveInt = Field(description="Steps after which everything is learned from [total_curriculum_step].")


def column_is_named(curriculum: Curriculum) -> Iterator[Breach]:
    if curriculum.by == "column" and curriculum.column is None:
        yield Breach(("by",), "by: column without a column", "nobody says how hard a sample is", "name one in data.curriculum.column")


RULES = (
    Rule(
        "spec.data.curriculum",
        "GTJ0108",
        column_is_named,
        "self.by != 'column' || has(self.column)",
        "by: column needs data.curriculum.column",
    ),
)
