"""How large a group is and when it makes way, by nodes of the test's and a clock of the test's: no cluster."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision

from trainjobs.plan.group import Group
from trainjobs.plan.room import TRIES
from trainjobs.run import preemption, progress
from trainjobs.run.preemption import Notice
from trainjobs.workers.ray_train import nodes
from trainjobs.workers.ray_train.nodes import Elastic, PreemptionWatch

CPU = Group(1, (1, 2, 4), False)
EIGHT = Group(8, (8, 16), True)


class Cluster:
    """What Ray would say: `up` are nodes with their resources, `drained` those that go."""

    def __init__(self) -> None:
        self.up: dict[str, dict[str, float]] = {}
        self.drained: dict[str, int] = {}
        self.asked: list[Any] = []
        self.time, self.slept = 1000.0, 0.0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": True, "Resources": resources} for name, resources in self.up.items()]

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(nodes.ray, "nodes", made.nodes)
    monkeypatch.setattr(nodes, "going", lambda: made.drained)
    monkeypatch.setattr(nodes, "request_resources", lambda bundles: made.asked.append(bundles))
    monkeypatch.setattr(nodes, "time", SimpleNamespace(monotonic=lambda: made.time, sleep=made.sleep))
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "failures").mkdir()
    return tmp_path


def elastic(run: Path, group: Group = CPU, *, pods: bool = True) -> Elastic:
    scaling = ScalingConfig(
        num_workers=(group.sizes[0], group.sizes[-1]),
        resources_per_worker=group.needs,
        use_gpu=group.on_gpu,
        elastic_resize_monitor_interval_s=60.0,
    )
    return Elastic(scaling, run, group, pods=pods)


def started(policy: Elastic) -> int:
    """The size of the next group, 0 for none."""
    decision = policy.make_decision_for_non_running_worker_group()
    return decision.num_workers if isinstance(decision, ResizeDecision) else 0


@pytest.mark.parametrize(
    ("up", "drained", "pods", "size"),
    [
        ({}, {}, True, 0),
        ({"a": {"CPU": 4.0}}, {}, True, 1),  # every worker has a pod of its own
        ({"a": {"CPU": 4.0}}, {}, False, 4),
        ({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}, "c": {"CPU": 1.0}}, {}, True, 2),  # three is no size of the group
        ({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}, {"b": 0}, True, 1),
        ({"a": {"GPU": 1.0}}, {}, True, 0),
    ],
)
def test_a_group_is_as_large_as_there_is_room_for(
    up: dict[str, Any], drained: dict[str, int], pods: bool, size: int, cluster: Cluster, run: Path
) -> None:
    cluster.up, cluster.drained = up, drained
    assert started(elastic(run, pods=pods)) == size
    assert (cluster.slept > 0) is (size == 0), "the controller asks again at once"


def test_each_process_gets_what_it_needs(cluster: Cluster, run: Path) -> None:
    cluster.up = {"a": {"CPU": 8.0, "GPU": 8.0}, "b": {"CPU": 8.0, "GPU": 8.0}}
    decision = elastic(run, EIGHT).make_decision_for_non_running_worker_group()
    assert isinstance(decision, ResizeDecision)
    assert (decision.num_workers, decision.resources_per_worker) == (16, {"CPU": 1, "GPU": 1})


def test_the_autoscaler_is_asked_once_for_whole_nodes_of_the_largest_size(cluster: Cluster, run: Path) -> None:
    policy = elastic(run)
    started(policy)
    started(policy)
    assert cluster.asked == [[{"CPU": 1.0}] * 4]
    cluster.up = {"a": {"CPU": 3.0}}  # now it is known what a worker's node has
    started(policy)
    assert cluster.asked[1:] == [[{"CPU": 3.0}] * 4]
    assert policy._get_num_workers_for_resource_request() == 4
    cluster.asked.clear()
    started(elastic(run, pods=False))
    assert cluster.asked == [], "on one machine there is nobody to ask"


def test_workers_of_eight_processes_are_asked_for_as_workers(cluster: Cluster, run: Path) -> None:
    started(elastic(run, EIGHT))
    assert cluster.asked == [[{"CPU": 8, "GPU": 8}] * 2]


def test_a_size_that_gains_nothing_is_given_up(cluster: Cluster, run: Path) -> None:
    cluster.up = {name: {"CPU": 1.0} for name in "abcd"}
    policy, sizes = elastic(run), []
    for fruitless in range(2 * TRIES + 1):
        progress.replace(run / "failures" / "counts", f'{{"fruitless": {fruitless}}}')
        sizes.append(started(policy))
    assert sizes == [4] * TRIES + [2] * TRIES + [1]


def healthy(policy: Elastic, size: int, since: float) -> None:
    state = SimpleNamespace(start_time=since, num_workers=size)
    assert isinstance(policy.make_decision_for_running_worker_group(state, None), NoopDecision), "never cut short"


def test_a_group_that_could_be_larger_is_told_and_left_to_save(cluster: Cluster, run: Path) -> None:
    cluster.up = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    policy = elastic(run)
    healthy(policy, 1, since=cluster.time - 59.0)
    assert preemption.pending(run) is None, "it has just begun"
    healthy(policy, 1, since=cluster.time - 60.0)
    assert preemption.pending(run) == Notice("resized", "there is room for 2 workers instead of 1")


def test_the_nodes_are_looked_at_once_in_an_interval(cluster: Cluster, run: Path) -> None:
    policy = elastic(run)
    healthy(policy, 1, since=0.0)
    cluster.up = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    cluster.time += 59.0
    healthy(policy, 1, since=0.0)
    assert preemption.pending(run) is None
    cluster.time += 1.0
    healthy(policy, 1, since=0.0)
    assert preemption.pending(run) is not None


@pytest.mark.parametrize("size", [2, 4])
def test_a_group_that_has_all_the_room_or_more_is_left_alone(size: int, cluster: Cluster, run: Path) -> None:
    cluster.up = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    healthy(elastic(run), size, since=0.0)
    assert preemption.pending(run) is None


def test_a_notice_that_is_there_already_is_kept(cluster: Cluster, run: Path) -> None:
    cluster.up = {"a": {"CPU": 1.0}, "b": {"CPU": 1.0}}
    preemption.give(run, Notice("reclaimed", "the node of rank 0 is taken away", 5.0))
    healthy(elastic(run), 1, since=0.0)
    assert preemption.pending(run) == Notice("reclaimed", "the node of rank 0 is taken away", 5.0)


def looks(watch: PreemptionWatch, times: int) -> None:
    """The watch's own look, as often as `times`: the event is over then."""

    class Over:
        count = 0

        def wait(self, seconds: float) -> bool:
            self.count += 1
            return self.count > times

        def is_set(self) -> bool:
            return False

    watch._look(Over(), {"a": [0], "b": [1, 2]}, "head")  # type: ignore[arg-type]


def test_a_drained_node_is_a_notice(cluster: Cluster, run: Path) -> None:
    cluster.drained = {"elsewhere": 1}
    looks(PreemptionWatch(run), 3)
    assert preemption.pending(run) is None
    cluster.drained = {"b": 5000}
    looks(PreemptionWatch(run), 1)
    assert preemption.pending(run) == Notice("reclaimed", "nodes of ranks 1 and 2 are taken away", 5.0)
    preemption.withdraw(run)
    cluster.drained = {"head": 7000}
    looks(PreemptionWatch(run), 1)
    assert preemption.pending(run) == Notice("stopped", "the driver's node is taken away", 7.0)


def test_a_head_that_does_not_answer_is_asked_again_and_told_of_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = [TimeoutError("busy"), TimeoutError("busy"), ConnectionError("gone"), {"a": 0}]

    def going() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(nodes, "going", going)
    looks(PreemptionWatch(run), 9)
    assert answers == [], "it ended with its notice"
    assert capsys.readouterr().out.splitlines() == ["drains of nodes cannot be seen: busy", "drains of nodes cannot be seen: gone"]
    assert preemption.pending(run) is not None


def test_a_watch_knows_the_ranks_of_its_group_and_ends_with_it(cluster: Cluster, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "head"))
    seen: list[Any] = []
    looked = threading.Event()

    def look(over: threading.Event, ranks: Any, own: str) -> None:
        seen.append((over, ranks, own))
        looked.set()

    watch = PreemptionWatch(run)
    monkeypatch.setattr(watch, "_look", look)
    preemption.give(run, Notice("resized", "of the group before"))
    watch.before_worker_group_start(None)
    assert preemption.pending(run) is None
    placed = [("a", 0), ("b", 1), ("b", 2)]
    workers = [
        SimpleNamespace(metadata=SimpleNamespace(node_id=node), distributed_context=SimpleNamespace(world_rank=rank))
        for node, rank in placed
    ]
    watch.after_worker_group_start(SimpleNamespace(get_workers=lambda: workers))
    assert looked.wait(60.0)
    ((over, ranks, own),) = seen
    assert (ranks, own) == ({"a": [0], "b": [1, 2]}, "head")
    assert not over.is_set()
    watch.before_worker_group_shutdown(None)
    assert over.is_set()


def test_a_group_that_never_started_has_no_watch_to_end(run: Path) -> None:
    PreemptionWatch(run).before_worker_group_abort(None)
