"""What is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt
from trainjobs.api.metrics import ASKED, Asked


class Evaluation(Model):
    """Scores and samples on the way."""

    every_steps: PositiveInt | None = Field(
        None, description="Steps between evaluations; default: a tenth of the steps. The last step is always evaluated."
    )
    metrics: Annotated[list[Asked], Field(max_length=8)] = Field(["loss"], description=ASKED)
    samples: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Samples drawn at each evaluation.")
