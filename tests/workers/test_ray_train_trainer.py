"""Ray Train gives up when the run has, and what Ray says of memory is understood: its policy without a cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.exceptions import WorkerGroupError

from trainjobs.api.errors import JobError
from trainjobs.plan.group import Group
from trainjobs.run import failures, preemption, progress
from trainjobs.workers import retries
from trainjobs.workers.ray_train import deaths, trainer
from trainjobs.workers.ray_train.nodes import Elastic, PreemptionWatch
from trainjobs.workers.ray_train.trainer import RunFailurePolicy, Trainer

RETRY, RAISE = FailureDecision.RETRY, FailureDecision.RAISE


# As Ray 2.60 says it, without what stands in between.
KILLED = """Training failed due to worker errors:
[Rank 0 Error Snippet]:
ray.exceptions.ActorDiedError: The actor died because its owner has died.
[Rank 1 Error Snippet]:
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2) was 0.66GB used / 0.68GB limit (0.96)
OOM kill reason: Memory usage 704151552B exceeded threshold of 697303040B (95.0% of 734003200B limit)
"""


def test_a_worker_that_ray_ended_for_its_memory_is_explained() -> None:
    found = trainer.starved(KILLED)
    assert found is not None
    rank, error = found
    assert (rank, error.code) == (1, "GTJ0205")
    assert "0.66 of the 0.68 GB" in (error.why or "")
    assert "1.4 GB for a start" in (error.how or "")
    assert trainer.starved("Training failed due to worker errors:\n[Rank 0 Error Snippet]:\nValueError: no") is None


def test_a_rank_is_not_blamed_for_the_memory_of_another() -> None:
    """The first rank's snippet ends where the next one begins."""
    found = trainer.starved(KILLED.replace("[Rank 1", "[Rank 12"))
    assert found is not None
    assert found[0] == 12


def ended(said: str = "a worker died") -> WorkerGroupError:
    return WorkerGroupError(said, {1: RuntimeError(said)})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    failures.begin(tmp_path, 1.5)
    return tmp_path


def policy(run: Path, retries: int = 0) -> RunFailurePolicy:
    return RunFailurePolicy(FailureConfig(max_failures=-1), run, retries)


def test_a_group_that_lost_a_worker_is_started_again(run: Path) -> None:
    ours = policy(run)
    for restart in range(3):
        assert retries.verdict(run, 0) is None
        progress.update(run, step=restart + 1)
        assert ours.make_decision(ended()) is RETRY


@pytest.mark.parametrize(
    ("error", "allowed", "decision"),
    [
        (JobError("GTJ0207", "loss not finite"), 9, RAISE),
        (ValueError("bad shape"), 0, RAISE),
        (ValueError("bad shape"), 1, RETRY),
        (RuntimeError("Connection closed by peer"), 0, RETRY),
    ],
)
def test_no_group_follows_one_whose_accounts_are_the_end(error: Exception, allowed: int, decision: FailureDecision, run: Path) -> None:
    retries.verdict(run, allowed)
    failures.record(run, 1, error)
    assert policy(run, allowed).make_decision(ended()) is decision


def test_a_worker_that_ran_out_of_memory_is_accounted_for_in_its_name(run: Path) -> None:
    retries.verdict(run, 9)
    assert policy(run, 9).make_decision(ended(KILLED)) is RAISE
    cause = failures.culprit(run)
    assert cause is not None
    assert (cause["code"], cause["rank"]) == ("GTJ0205", 1)


def test_groups_that_never_come_to_ask_are_counted_here(run: Path) -> None:
    """A worker that dies while it starts has asked nobody whether to train, so no verdict counts it."""
    ours = policy(run)
    for _ in range(retries.FRUITLESS_RESTARTS):
        assert ours.make_decision(ended()) is RETRY
    assert ours.make_decision(ended()) is RAISE
    cause = failures.culprit(run)
    assert cause is not None
    assert cause["code"] == "GTJ0213"
    assert f"{retries.FRUITLESS_RESTARTS + 1} times in a row while they started" in cause["what"]


def test_a_group_that_asks_begins_that_count_again(run: Path) -> None:
    ours = policy(run)
    for step in range(1, 3 * retries.FRUITLESS_RESTARTS):
        if step % retries.FRUITLESS_RESTARTS == 0:
            assert retries.verdict(run, 0) is None
            progress.update(run, step=step)
        assert ours.make_decision(ended()) is RETRY


def test_groups_that_never_ask_after_one_that_did_are_counted_from_the_first(run: Path) -> None:
    assert retries.verdict(run, 0) is None
    ours = policy(run)
    assert [ours.make_decision(ended()) for _ in range(retries.FRUITLESS_RESTARTS + 1)] == [RETRY] * retries.FRUITLESS_RESTARTS + [RAISE]


# As Ray 2.60 says it.
DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
\tip: 10.0.0.2
The actor is dead because its {cause}"""
PROCESS = "worker process has died. Worker exit type: {kind} Worker exit detail: Worker unexpectedly exits with a connection error code 2."
NODE = "node has died. Node Id: 4f. the actor's node was terminated unexpectedly: health check failed"


def lost(cause: str, *, preempted: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.args, error.error_msg, error._preempted = (), DIED.format(cause=cause), preempted
    return error


SELF = PROCESS.format(kind="SYSTEM_ERROR")


@pytest.mark.parametrize(
    ("failed", "ranks"),
    [
        ({1: lost(SELF)}, [1]),
        ({0: RuntimeError("Connection closed by peer"), 3: WorkerHealthCheckFailedError("the worker", lost(SELF))}, [3]),
        ({1: lost(PROCESS.format(kind="INTENDED_USER_EXIT"))}, [1]),
        # Not by itself: Ray ended it, its node went, with it or with another, or was taken back.
        ({1: lost(PROCESS.format(kind="INTENDED_SYSTEM_EXIT"))}, []),
        ({1: lost(PROCESS.format(kind="NODE_OUT_OF_MEMORY"))}, []),
        ({1: lost(NODE)}, []),
        ({0: lost(SELF), 1: lost(NODE)}, []),
        ({0: lost(SELF), 1: lost(NODE, preempted=True)}, []),
        ({0: RuntimeError("bad shape")}, []),
    ],
)
def test_who_died_by_himself(failed: dict[int, Exception], ranks: list[int]) -> None:
    found = deaths.died(WorkerGroupError("a worker died", failed))
    assert [death.rank for death in found] == ranks
    assert all(death.address == "10.0.0.2" for death in found)
    assert deaths.died(RuntimeError("the controller")) == []


def ends(run: Path, retries_allowed: int, error: Exception, stays: bool = True) -> int:
    """How many groups are started in all, of which each gains a step and ends alike; 20 for no end."""
    ours = RunFailurePolicy(FailureConfig(max_failures=-1), run, retries_allowed, lambda address: stays)
    for group in range(1, 20):
        if retries.verdict(run, retries_allowed) is not None:
            return group - 1
        progress.update(run, step=group)
        if ours.make_decision(WorkerGroupError("a worker died", {1: error})) is RAISE:
            return group
    return 20


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_worker_that_dies_by_itself_counts_against_max_retries(allowed: int, run: Path) -> None:
    assert ends(run, allowed, lost(SELF)) == allowed + 1
    cause = failures.culprit(run)
    assert cause is not None
    assert (cause["code"], cause["rank"], cause["what"]) == ("GTJ0214", 1, "the process of rank 1 died by itself")


@pytest.mark.parametrize(("cause", "stays"), [(NODE, True), (NODE, False), (SELF, False)])
def test_a_worker_that_dies_with_its_machine_does_not(cause: str, stays: bool, run: Path) -> None:
    assert ends(run, 1, lost(cause), stays) == 20
    assert failures.culprit(run) is None


@pytest.mark.parametrize(("workers", "gained", "counted"), [(2, 0, False), (2, 1, True), (1, 0, True)])
def test_where_a_smaller_group_may_live_it_is_tried_first(workers: int, gained: int, counted: bool, run: Path) -> None:
    """Two workers that this machine cannot bear, and no step gained: a size is given up before the run is."""
    ours = RunFailurePolicy(FailureConfig(max_failures=-1), run, 0, smallest=1)
    assert retries.verdict(run, 0) is None
    progress.update(run, step=gained, workers=workers)
    assert ours.make_decision(WorkerGroupError("a worker died", {1: lost(SELF)})) is (RAISE if counted else RETRY)


def test_a_worker_that_dies_while_it_starts_is_not_started_ten_times(run: Path) -> None:
    """Nobody has asked for a verdict then."""
    ours = policy(run, 1)
    died = WorkerGroupError("a worker died", {0: lost(SELF)})
    assert [ours.make_decision(died), ours.make_decision(died)] == [RETRY, RAISE]


def test_a_process_that_ends_after_its_account_or_a_notice_did_not_die_by_itself(run: Path) -> None:
    """A worker that stalls says so and leaves; a group that makes way leaves, too."""
    retries.verdict(run, 9)
    failures.record(run, 1, RuntimeError("Connection closed by peer"))
    assert policy(run, 9).make_decision(WorkerGroupError("a worker died", {1: lost(SELF)})) is RETRY
    assert len(failures.accounts(run)) == 1
    preemption.give(run, preemption.Notice("reclaimed", "the node of rank 0 is taken away"))
    assert policy(run, 9).make_decision(WorkerGroupError("a worker died", {0: lost(SELF)})) is RETRY
    assert len(failures.accounts(run)) == 1


def made(run: Path, workers: Any) -> Trainer:
    group = Group(1, (1, 2), False)
    scaling, config = ScalingConfig(num_workers=workers), RunConfig(failure_config=FailureConfig(max_failures=-1))
    return Trainer(lambda: None, run=run, retries=3, group=group, scaling_config=scaling, run_config=config)


def test_parts_that_the_job_has_no_use_for_are_left_out_and_ours_are_put_in(run: Path) -> None:
    idle, wanted, fixed = object.__new__(DatasetsCallback), SimpleNamespace(name="wanted"), SimpleNamespace(name="fixed")
    parts = made(run, 2)._lighter({"callbacks": [idle, wanted], "scaling_policy": fixed, "failure_policy": None, "train_fn_ref": 7})
    assert parts["callbacks"][0] is wanted
    assert [type(callback) for callback in parts["callbacks"][1:]] == [PreemptionWatch]
    assert isinstance(parts["failure_policy"], RunFailurePolicy)
    assert parts["scaling_policy"] is fixed
    assert parts["train_fn_ref"] == 7


def test_a_group_of_several_sizes_is_scaled_by_us(run: Path) -> None:
    parts = made(run, (1, 2))._lighter({"callbacks": [], "scaling_policy": None, "failure_policy": None})
    assert isinstance(parts["scaling_policy"], Elastic)
