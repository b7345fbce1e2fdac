"""Where checkpoints go, and which are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api import uris
from trainjobs.api.fields import Model, PositiveInt, StoreUri
from trainjobs.api.metrics import EXAMPLE
from trainjobs.api.rule import Breach, Rule


class Every(Model):
    """When a checkpoint is taken."""

    steps: PositiveInt | None = Field(None, description="Steps between checkpoints.")
    minutes: PositiveInt | None = Field(None, description="Minutes between checkpoints.")


class Best(Model):
    """Which checkpoint is the best."""

    metric: Annotated[str, Field(min_length=1, max_length=63)] = Field(description=f"Name of an evaluation metric, e.g. {EXAMPLE}.")
    mode: Literal["min", "max"] = Field("min", description="Whether lower or higher is better.")


class Keep(Model):
    """Which checkpoints are kept."""

    last: Annotated[int, Field(ge=1, le=1000)] = Field(3, description="Newest checkpoints kept.")
    every_steps: PositiveInt | None = Field(None, description="Checkpoints at multiples of this are kept for ever.")
    best: Best | None = Field(None, description="The best checkpoint by a metric is kept.")
    pinned: Annotated[list[PositiveInt], Field(max_length=64)] = Field([], description="Checkpoints at these steps are kept for ever.")


class Checkpoints(Model):
    """Where checkpoints go, how often they are taken, what a run begins with."""

    uri: StoreUri | None = Field(None, description="Prefix for checkpoints; gtj run without one uses the run folder.")
    every: Every | None = Field(None, description="Interval; default: a tenth of the steps. The last step is always saved.")
    keep: Keep = Keep()
    resume_from: Annotated[str, Field(max_length=1024, pattern=r"^(latest|none|(file://|s3://|gs://|az://).+)$")] = Field(
        "latest", description="latest, none, or a checkpoint's URI."
    )
    allow_data_change: bool = Field(
        False, description="Go on although the data is not what it was at the checkpoint; the step is marked in the report."
    )
    allow_optimizer_reset: bool = Field(
        False, description="Where optimizer or moving average differ from the checkpoint's, take its weights and begin the rest anew."
    )


def beginning_is_somewhere(uri: str) -> Iterator[Breach]:
    if uri not in ("latest", "none"):
        yield from uris.prefix(uri)


def interval_is_one(every: Every) -> Iterator[Breach]:
    if (every.steps is None) == (every.minutes is None):
        what = "spec.checkpoints.every needs one of steps and minutes" if every.steps is None else "steps beside minutes"
        yield Breach((), what, "there is one interval between checkpoints", "write `every: {steps: 100}` or `every: {minutes: 10}`")


RULES = (
    Rule("spec.checkpoints.uri", "GTJ0107", uris.prefix, uris.PREFIX, uris.UNUSABLE),
    Rule(
        "spec.checkpoints.resumeFrom",
        "GTJ0107",
        beginning_is_somewhere,
        f"self in ['latest', 'none'] || ({uris.PREFIX})",
        uris.UNUSABLE,
    ),
    Rule(
        "spec.checkpoints.every",
        "GTJ0108",
        interval_is_one,
        "has(self.steps) != has(self.minutes)",
        "exactly one of steps and minutes",
    ),
)
