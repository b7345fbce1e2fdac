"""Where a run's curves are shown besides its own pages: a tracker that the user has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model

PROJECT = r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"


class Tracking(Model):
    """A tracker, which is told every row of metrics. Its address and its key are in the environment, as it reads them by itself: on a
    cluster by pod.env, the key by secretKeyRef."""

    tracker: Literal["wandb", "mlflow", "trackio"] = Field(
        description="wandb (Weights & Biases), mlflow or trackio; its package must be installed where the job trains."
    )
    project: Annotated[str, Field(min_length=1, max_length=63, pattern=PROJECT)] = Field(
        "gentrain", description="Project of wandb and trackio, experiment of mlflow. The run is called as the job."
    )
