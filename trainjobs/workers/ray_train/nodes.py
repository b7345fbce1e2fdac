"""Nodes of a Ray cluster, as a group of workers lives on them: how many workers there is room for, and which nodes are about to go.

Both run where the group's controller does, on the machine of the driver, so what they have to say is a notice in the run folder
(run/preemption.py): the group takes a checkpoint and leaves, and the next one is put where there is room then. Ray Train's own elastic
policy ends a healthy group in the middle of a step instead, whose steps since the last checkpoint are lost; it counts a pod of four cores
as four workers, though every worker has a pod of its own; and it asks through an actor that imports Ray Data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingDecision, ScalingPolicy

from trainjobs.plan.group import Group
from trainjobs.plan.room import Node, largest, narrowed, room, whole
from trainjobs.run import preemption, progress
from trainjobs.run.preemption import Notice

EVERY = 1.0  # seconds between looks at the nodes


class Elastic(ScalingPolicy):  # type: ignore[misc]
    """As many processes as there is room for, of the sizes that the group may have. With `pods`, each worker's are on a node of their own.

    A group that runs is never cut short: one that loses a worker fails by itself, and one that could be larger is told so by a notice,
    at the earliest when it has run for `elastic_resize_monitor_interval_s`.
    """

    def __init__(self, scaling_config: Any, run: Path, group: Group, *, pods: bool) -> None:
        super().__init__(scaling_config)
        self._run, self._sizes, self._each, self._pods = run, group.sizes, group.each, pods
        self._needs: dict[str, float] = scaling_config._resources_per_worker_not_none
        self._asked: list[dict[str, float]] = []
        self._last, self._fruitless, self._looked = 0, 0, float("-inf")

    def _cancel_resource_request(self) -> None:
        """None was sent."""

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        self._give_up_a_size()
        size = self._size()
        if not size:
            time.sleep(EVERY)  # the controller would ask again at once
            return NoopDecision()
        self._last = size
        return ResizeDecision(num_workers=size, resources_per_worker=self._needs)

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> ScalingDecision:
        now, interval = time.monotonic(), self.scaling_config.elastic_resize_monitor_interval_s
        if now - max(worker_group_state.start_time, self._looked) >= interval:
            self._looked = now
            size, have = self._size(), worker_group_state.num_workers
            if size > have and preemption.pending(self._run) is None:
                preemption.give(
                    self._run, Notice("resized", f"there is room for {size // self._each} workers instead of {have // self._each}")
                )
        return NoopDecision()

    def _size(self) -> int:
        """The largest allowed size there is room for, or 0."""
        nodes = ray.nodes()
        self._ask(nodes)
        return largest(self._sizes, room(nodes, going(), self._needs, each=self._each, spread=self._pods))

    def _give_up_a_size(self) -> None:
        """A size at which group after group dies before it has gained a step is not tried again."""
        fruitless = int(progress.read(self._run / "failures" / "counts").get("fruitless", 0))
        if fruitless > self._fruitless:
            self._sizes = narrowed(self._sizes, self._last, fruitless)
        self._fruitless = fruitless

    def _ask(self, nodes: Sequence[Node]) -> None:
        """Have the autoscaler of the cluster, if it has one, bring nodes for the largest size."""
        needs = {name: amount * self._each for name, amount in self._needs.items()}
        bundles = [whole(nodes, needs)] * (self._get_num_workers_for_resource_request() // self._each)
        if self._pods and bundles != self._asked:
            request_resources(bundles=bundles)
            self._asked = bundles

    def _get_num_workers_for_resource_request(self) -> int:
        return self._sizes[-1]

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to register: the Ray cluster is this job's alone."""


class PreemptionWatch(WorkerGroupCallback):  # type: ignore[misc]
    """Looks, while a group runs, whether one of its nodes is drained, and leaves a notice then; of the driver's own node, to the driver.

    In place of Ray Train's watcher, whose news a worker gets by a collective that every rank has to call at the same step.
    """

    def __init__(self, run: Path, every: float = EVERY) -> None:
        self._run, self._every = run, every
        self._over: threading.Event | None = None

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        preemption.withdraw(self._run)

    def after_worker_group_start(self, worker_group: Any) -> None:
        ranks: dict[str, list[int]] = {}
        for worker in worker_group.get_workers():
            ranks.setdefault(worker.metadata.node_id, []).append(worker.distributed_context.world_rank)
        own = ray.get_runtime_context().get_node_id()
        self._over = threading.Event()
        threading.Thread(target=self._look, args=(self._over, ranks, own), name="drains", daemon=True).start()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self._end()

    def before_worker_group_abort(self, worker_group_context: Any) -> None:
        self._end()

    def _end(self) -> None:
        if self._over is not None:
            self._over.set()

    def _look(self, over: threading.Event, ranks: Mapping[str, list[int]], own: str) -> None:
        trouble = ""
        while not over.wait(self._every):
            try:
                notice = preemption.announced(going(), ranks, own)
            except Exception as error:  # whatever the cluster's head answers while it is busy: it is asked again
                if trouble != (trouble := str(error)):
                    print(f"drains of nodes cannot be seen: {error}", flush=True)
                continue
            if notice is not None and not over.is_set():
                preemption.give(self._run, notice)
                return


def going() -> dict[str, int]:
    """The nodes that are drained."""
    return dict(ray._private.state.state.get_draining_nodes() or {})
