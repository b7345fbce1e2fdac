"""What is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainjobs.api.alignment import Worth
from trainjobs.api.fields import Model, PositiveInt
from trainjobs.api.metrics import ASKED, BUILTIN, Asked

SAMPLES = 64  # drawn at an evaluation, where there is time
FID_SAMPLES = 2000  # generated pictures, and real ones, that fid, kid, is, precision and recall are of
LONGEST_SAMPLE = 256  # tokens: a picture of what the model does, not a benchmark

_FEATURES = r"^(builtin|(file://|s3://|gs://|az://).+\.(pt|pt2|ts))$"


class Evaluation(Model):
    """Scores and samples on the way."""

    every_steps: PositiveInt | None = Field(
        None,
        description="Steps between evaluations; default: a tenth of the steps, or in a run so short that this would take more than a "
        "tenth of its time, only the last step. The last step is always evaluated.",
    )
    metrics: Annotated[list[Asked], Field(max_length=12)] = Field(["loss"], description=ASKED)
    rewards: Annotated[list[Worth], Field(max_length=8)] = Field(
        [], description="What win_rate compares completions by, added; default: the rewards of language.grpo or ppo."
    )
    prompts: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(max_length=64)] = Field(
        [],
        description="What samples are drawn for, one after the other and from the front again: texts, or names of classes. Without any, "
        "what held-out samples are of [validation_prompts].",
    )
    features: Annotated[str, Field(min_length=1, max_length=1024, pattern=_FEATURES)] = Field(
        BUILTIN,
        description="Network whose features fid, kid, is, precision and recall compare: builtin, a classifier of digits for "
        "builtin:digits and a fixed network of random weights for other pictures; or the URI of a file of TorchScript (.pt, .ts) or of "
        "torch.export (.pt2), whose network is given pictures float32 [B, 3, H, W] in [-1, 1] and returns features [B, F], or those and a "
        "classifier's outputs before the softmax [B, K] [Inception].",
    )
    fid_samples: Annotated[int, Field(ge=2, le=50_000)] | None = Field(
        None,
        description=f"Pictures generated for fid, kid, is, precision and recall, and real ones that they are compared with, if there are "
        f"as many; default: {FID_SAMPLES:,} [num_gen, fid_num_samples].",
    )
    samples: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Samples drawn at each evaluation; default: 64, or as many, and only at the last one if need be, as leave all "
        "evaluations within a tenth of the run, at least 4; the run says which. Without everySteps, a number given here is drawn as often "
        "as that allows.",
    )
