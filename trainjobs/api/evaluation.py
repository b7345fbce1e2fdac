"""What is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt
from trainjobs.api.metrics import ASKED, Asked

SAMPLES = 64  # drawn at an evaluation, where there is time
LONGEST_SAMPLE = 256  # tokens: a picture of what the model does, not a benchmark


class Evaluation(Model):
    """Scores and samples on the way."""

    every_steps: PositiveInt | None = Field(
        None,
        description="Steps between evaluations; default: a tenth of the steps, or in a run so short that this would take more than a "
        "tenth of its time, only the last step. The last step is always evaluated.",
    )
    metrics: Annotated[list[Asked], Field(max_length=8)] = Field(["loss"], description=ASKED)
    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=64)] = Field(
        [],
        description="What samples are drawn for, one after the other and from the front again: texts, or names of classes. Without any, "
        "what held-out samples are of [validation_prompts].",
    )
    samples: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Samples drawn at each evaluation; default: 64, or as many, and only at the last one if need be, as leave all "
        "evaluations within a tenth of the run, at least 4; the run says which. Without everySteps, a number given here is drawn as often "
        "as that allows.",
    )
