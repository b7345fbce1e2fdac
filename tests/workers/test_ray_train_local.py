"""What a run on one machine does without, and that Ray is as it was afterwards."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray._private.node import Node
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
from ray.train.v2._internal.execution.worker_group import state, worker_group

from trainjobs.api.errors import JobError
from trainjobs.workers.ray_train import local
from trainjobs.workers.ray_train.local import LocalGroup, LocalTrainer, NoCollectives, OneMachine, without_idle_services

SERVICES = ("start_monitor", "start_log_monitor", "start_api_server")


def test_services_are_left_out_within_the_block_alone() -> None:
    before = {name: getattr(Node, name) for name in SERVICES}

    def init() -> None:
        assert all(getattr(Node, name) is not before[name] for name in SERVICES)
        assert [getattr(Node, name)(None, include_dashboard=True) for name in SERVICES] == [None] * 3
        raise RuntimeError("Ray does not start")

    with pytest.raises(RuntimeError, match="does not start"), without_idle_services():
        init()
    assert {name: getattr(Node, name) for name in SERVICES} == before


def test_one_machine_asks_nobody_for_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OneMachine, "_autoscaling_coordinator", property(lambda self: pytest.fail("a process was started to be asked")))
    policy = OneMachine(ScalingConfig(num_workers=3, resources_per_worker={"CPU": 1}))
    decision = policy.make_decision_for_non_running_worker_group()
    assert isinstance(decision, ResizeDecision)
    assert decision.num_workers == 3
    policy.make_decision_for_running_worker_group(None, None)


def test_workers_get_their_own_part_and_no_actor_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(local.ray, "get", lambda references: references)

    def worker(rank: int) -> Any:
        begin = SimpleNamespace(remote=lambda **arguments: told.append(arguments))
        return SimpleNamespace(actor=SimpleNamespace(init_train_context=begin), distributed_context=rank)

    group: Any = object.__new__(LocalGroup)
    group._train_run_context, group._storage_context, group._worker_callbacks_to_propagate = "run", "storage", ["callback"]
    named: list[Any] = []
    group._decorate_worker_log_file_paths = named.extend
    workers = [worker(0), worker(1)]
    group._init_train_context_on_workers(workers, "collectives", {"dataset": ["first", "second"]})
    assert [(one["distributed_context"], one["dataset"]) for one in told] == [(0, "first"), (1, "second")]
    assert all(one["controller_actor"] is None and one["synchronization_actor"] is None for one in told)
    assert all(one["train_run_context"] == "run" and one["storage_context"] == "storage" for one in told)
    assert named == workers


@pytest.mark.parametrize("fails", [False, True])
def test_the_controller_runs_here_without_the_actor_for_collectives(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = worker_group.SynchronizationActor, state._shutdown_sync_actor
    seen: list[Any] = []

    class Controller:
        def __init__(self, **parts: Any) -> None:
            seen.append(parts)

        async def run(self) -> None:
            actor = worker_group.SynchronizationActor.options(num_cpus=0).remote(timeout_s=1)
            assert isinstance(actor, NoCollectives)
            state._shutdown_sync_actor(actor)
            if fails:
                raise RuntimeError("the group has failed")

        def get_result(self) -> str:
            return "result"

    monkeypatch.setattr(local, "LocalController", Controller)
    trainer: Any = object.__new__(LocalTrainer)
    monkeypatch.setattr(trainer, "_lighter", lambda parts: {**parts, "lighter": True})
    if fails:
        with pytest.raises(RuntimeError, match="the group has failed"):
            trainer._initialize_and_run_controller(callbacks=[])
    else:
        assert trainer._initialize_and_run_controller(callbacks=[]) == "result"
    assert seen == [{"callbacks": [], "lighter": True}]
    assert (worker_group.SynchronizationActor, state._shutdown_sync_actor) == before


def test_a_fixed_group_on_one_machine_asks_nobody_either() -> None:
    trainer: Any = object.__new__(LocalTrainer)
    trainer.scaling_config = ScalingConfig(num_workers=2)
    assert isinstance(trainer._fixed({"scaling_policy": "Ray's"}), OneMachine)
    assert not trainer.pods


def test_a_worker_imports_training_beside_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []

    class Thread:
        def __init__(self, **options: Any) -> None:
            self.options = options

        def start(self) -> None:
            begun.append(self.options)

    monkeypatch.setattr(local.threading, "Thread", Thread)
    local.warm()
    ((options),) = begun
    assert (options["target"], options["args"], options["daemon"]) == (local.importlib.import_module, ("trainjobs.loop",), True)


def test_a_machine_too_busy_for_rays_patience_is_asked_twice() -> None:
    asked: list[Any] = []

    def busy(**options: Any) -> None:
        asked.append(options)
        if len(asked) < 2:
            raise Exception("The current node timed out during startup. This could happen because ...")

    ended: list[int] = []
    local.begin(2, busy, lambda: ended.append(1))
    assert [each["num_cpus"] for each in asked] == [2, 2]
    assert ended == [1]


def test_ray_that_does_not_start_says_so_in_its_own_words() -> None:
    def never(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")

    def broken(**options: Any) -> None:
        raise ValueError("no such option")

    with pytest.raises(JobError, match=r"Ray did not start on this machine, twice") as told:
        local.begin(2, never, lambda: None)
    assert told.value.code == "GTJ0213"
    assert told.value.why == "The current node timed out during startup."
    assert "--no-ray" in told.value.how
    with pytest.raises(ValueError, match="no such option"):
        local.begin(2, broken, lambda: pytest.fail("nothing was started"))
