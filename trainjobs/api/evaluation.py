"""What is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import (
    Model,
    PositiveInt,
)


class Evaluation(Model):
    every_steps: PositiveInt | None = Field(
        None, description="Steps between evaluations; default: a tenth of the steps. The last step is always evaluated."
    )
    metrics: Annotated[list[Literal["loss", "perplexity", "modes"]], Field(max_length=8)] = Field(
        ["loss"], description="loss: held-out loss; perplexity: language models; modes: modes of builtin:ring covered."
    )
    samples: Annotated[int, Field(ge=1, le=1024)] = Field(64, description="Samples drawn at each evaluation.")
