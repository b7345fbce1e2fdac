"""Trackers, each behind three calls: start, log, finish. None of them is imported before it is used.

A run that goes on continues the tracker's run: W&B and Trackio find it by the identity that they are given, MLflow, which makes its own,
by a tag. What a tracker shows of a future that did not happen (a run went back to a checkpoint) stays there: none of them forgets.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainjobs.api.errors import JobError

TAG = "gentrain.run"  # of MLflow's run
PARAMETERS, LONGEST = 100, 500  # of one request to MLflow; characters of a parameter that every server takes


@dataclass(frozen=True)
class Tracked:
    """What a tracker is told first. `identity` is the run's for good; `folder` takes what it keeps on disk."""

    project: str
    name: str
    identity: str
    config: Mapping[str, Any]
    folder: Path


class Tracker(Protocol):
    """Calls may take as long as they like, and may raise anything."""

    def start(self, run: Tracked) -> None: ...
    def log(self, step: int, row: Mapping[str, float], time: float) -> None: ...
    def finish(self, succeeded: bool) -> None: ...


class Wandb:
    def start(self, run: Tracked) -> None:
        wandb = importlib.import_module("wandb")
        settings = wandb.Settings(console="off", silent=True)
        self._run: Any = wandb.init(
            project=run.project,
            name=run.name,
            id=run.identity,
            resume="allow",
            config=dict(run.config),
            dir=str(run.folder),
            settings=settings,
        )
        # W&B's own step only ever grows; a run that goes back makes some steps again.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, row: Mapping[str, float], time: float) -> None:
        self._run.log({**row, "step": step})

    def finish(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class Mlflow:
    def start(self, run: Tracked) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        self._client = self._mlflow.MlflowClient()
        experiment = self._client.get_experiment_by_name(run.project)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(run.project)
        known = self._client.search_runs([number], filter_string=f"tags.`{TAG}` = '{run.identity}'", max_results=1)
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(number, tags={TAG: run.identity}, run_name=run.name).info.run_id
        given = [self._mlflow.entities.Param(name, str(value)[:LONGEST]) for name, value in _leaves(run.config)]
        for first in range(0, len(given), PARAMETERS):
            self._client.log_batch(self._id, params=given[first : first + PARAMETERS])

    def log(self, step: int, row: Mapping[str, float], time: float) -> None:
        at = round(1000 * time)
        self._client.log_batch(self._id, metrics=[self._mlflow.entities.Metric(name, value, at, step) for name, value in row.items()])

    def finish(self, succeeded: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if succeeded else "KILLED")


class Trackio:
    def start(self, run: Tracked) -> None:
        trackio = importlib.import_module("trackio")
        name = f"{run.name}-{run.identity[:8]}"  # by which it finds a run again
        self._run: Any = trackio.init(project=run.project, name=name, config=dict(run.config), resume="allow")

    def log(self, step: int, row: Mapping[str, float], time: float) -> None:
        self._run.log(dict(row), step=step)

    def finish(self, succeeded: bool) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}
OURS = dict(TRACKERS)


def tracker(name: str) -> Tracker:
    """By name. GTJ0134 where its package is not installed: a run that is trained for a tracker is not trained without it."""
    made = TRACKERS[name]
    if made is OURS[name] and name not in sys.modules and importlib.util.find_spec(name) is None:
        how = f"install it where the job trains (pip install 'gentrain[{name}]', or an image that has it), or take training.tracking out"
        raise JobError("GTJ0134", f"{name} is not installed", where="spec.training.tracking.tracker", how=how)
    return made()


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}" if path else str(key))]
    return [(path, value)]
