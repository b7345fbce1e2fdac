"""Ray Train that gives up when the run has, and the words in which Ray says that memory ran out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from trainjobs.api.errors import JobError
from trainjobs.plan.group import Group
from trainjobs.run import failures, preemption, progress
from trainjobs.workers import retries
from trainjobs.workers.ray_train.deaths import died, remains
from trainjobs.workers.ray_train.nodes import Elastic, PreemptionWatch


class RunFailurePolicy(DefaultFailurePolicy):  # type: ignore[misc]
    """No further group for a run whose accounts say that it would be sent home. The controller lives on the driver's machine."""

    def __init__(
        self,
        failure_config: Any,
        run: Path,
        retries: int,
        remains: Callable[[str], bool] = lambda address: True,
        smallest: int = sys.maxsize,
    ) -> None:
        """`remains`: whether the machine at an address is still there; by default all are one, this one. `smallest`: workers of the
        smallest group that there may be."""
        super().__init__(failure_config)
        self._smallest = smallest
        self._run, self._retries, self._remains = run, retries, remains
        self._groups, self._unheard, self._deaths, self._asked = 0, 0, 0, False

    def make_decision(self, training_failed_error: Any) -> FailureDecision:
        if memory := starved(str(training_failed_error)):
            rank, error = memory
            failures.enter(self._run, failures.account(rank, error, failures.logs(self._run)))
        elif self._died(training_failed_error):
            self._deaths += 1
        if self._never_began():
            why, how = "no group came as far as to look for a checkpoint", f"read {failures.logs(self._run)}"
            lost = JobError("GTJ0213", f"workers were lost {self._unheard} times in a row while they started", why=why, how=how)
            failures.enter(self._run, failures.account(0, lost, failures.logs(self._run)))
        if retries.final(self._run, self._retries) or self._deaths > self._retries:
            return FailureDecision.RAISE
        if not self._asked:
            failures.forget(self._run)  # a verdict would have
        return super().make_decision(training_failed_error)

    def _died(self, error: Any) -> bool:
        """Whether a worker's process ended by itself. Then that is accounted for in its name: it counts as an exception of the training
        code does. A group that was told to leave, or one of whose workers has said what happened, has another cause."""
        if preemption.pending(self._run) is not None or any(not account["victim"] for account in failures.accounts(self._run)):
            return False
        spoke = {account["rank"] for account in failures.accounts(self._run)}
        death = next((death for death in died(error) if death.rank not in spoke), None)
        if death is None or self._may_be_too_many() or not self._remains(death.address):
            return False
        failures.enter(self._run, death.account(failures.logs(self._run)))
        return True

    def _may_be_too_many(self) -> bool:
        """Whether a smaller group may live where this one gained no step: then nodes.Elastic is to try it."""
        told, counts = progress.read(self._run / "progress.json"), progress.read(self._run / "failures" / "counts")
        return bool((told.get("workers") or 0) > self._smallest and (told.get("step") or 0) <= counts.get("step", 0))

    def _never_began(self) -> bool:
        """Whether so many groups in a row have ended without having asked for a verdict, which counts those that did."""
        groups = 1 + progress.read(self._run / "failures" / "counts").get("restarts", -1)
        self._asked = groups != self._groups
        self._unheard = 1 if self._asked else self._unheard + 1
        self._groups = groups
        return self._unheard > retries.FRUITLESS_RESTARTS


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray Train that gives up when the run has: `run` is the run folder, `retries` recovery.maxRetries. What Ray Train calls a worker is
    one of the processes of `group`.

    The Ray cluster is this job's alone, so no placement groups need cleaning up after it, and Ray's datasets are not used.
    """

    pods = True  # every worker is a node of its own

    def __init__(self, *arguments: Any, run: Path, retries: int, group: Group, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._run, self._retries, self._group = run, retries, group

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        return super()._initialize_and_run_controller(**self._lighter(parts))

    def _lighter(self, parts: dict[str, Any]) -> dict[str, Any]:
        idle = (PlacementGroupCleanerCallback, DatasetsCallback)
        callbacks = [callback for callback in parts["callbacks"] if not isinstance(callback, idle)]
        machines = remains if self.pods else lambda address: True
        policy = RunFailurePolicy(
            self.run_config.failure_config, self._run, self._retries, machines, self._group.sizes[0] // self._group.each
        )
        scaling = self._fixed(parts)
        if self.scaling_config.elasticity_enabled:
            scaling = Elastic(self.scaling_config, self._run, self._group, pods=self.pods)
        return {**parts, "callbacks": [*callbacks, PreemptionWatch(self._run)], "failure_policy": policy, "scaling_policy": scaling}

    def _fixed(self, parts: dict[str, Any]) -> Any:
        return parts["scaling_policy"]


# What Ray's memory monitor says of a worker that it ended, after the rank whose error it is.
STARVED = re.compile(
    r"\[Rank (?P<rank>\d+) Error Snippet\](?:(?!\[Rank ).)*?killed due to the node running low on memory"
    r".*?was (?P<used>[\d.]+)GB used / (?P<limit>[\d.]+)GB limit",
    re.DOTALL,
)


def starved(said: str) -> tuple[int, JobError] | None:
    """The rank that a pod's, or the machine's, memory was too small for, and what to do; from what Ray says of a group that failed."""
    if not (found := STARVED.search(said)):
        return None
    used, limit = float(found["used"]), float(found["limit"])
    why = f"{used:.2f} of the {limit:.2f} GB that it may use were taken when Ray ended it"
    how = (
        f"give each worker more, {2 * limit:.1f} GB for a start (node.memory of the ComputeProfile); or lower training.batch.micro, "
        "or split the states over more workers (deepspeed.stage)"
    )
    return int(found["rank"]), JobError("GTJ0205", "a worker ran out of host memory", why=why, how=how)
