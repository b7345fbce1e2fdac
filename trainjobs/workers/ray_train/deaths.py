"""A worker whose process ended by itself: os._exit, a crash in native code, the kernel for want of memory.

Ray says in words what became of an actor: its process died, or its node did. A node that goes is nobody's fault; a process that ends on
a machine that stays is the training code's, or its memory's, and counts against recovery.maxRetries.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from trainjobs.api.errors import JobError

# What Ray 2.60 says of an actor whose process is gone, and of one that Ray itself has ended.
PROCESS = re.compile(r"worker process has died\. Worker exit type: (?P<kind>\w+)(?: Worker exit detail: (?P<detail>[^\n]*))?")
BY_RAY = ("INTENDED_SYSTEM_EXIT", "NODE_OUT_OF_MEMORY")
NODE = "its node has died"
ADDRESS = re.compile(r"^\tip: (\S+)$", re.MULTILINE)
# A pod that is killed takes all its processes with it, and Ray may hear of the worker's end first.
SETTLING = 2.0  # seconds


@dataclass(frozen=True)
class Death:
    """`detail` is what Ray says of it, which is the same for all of these, `address` that of its node, "" where it is not said."""

    rank: int
    detail: str
    address: str

    def account(self, log: str) -> dict[str, Any]:
        """As run/failures.py keeps it: not known, and no victim's."""
        failure = JobError(
            "GTJ0214",
            f"the process of rank {self.rank} died by itself",
            why="nobody asked it to end, and its machine is still there: it left by itself, crashed, or was killed",
            how=f"its last words, if any, are in {log}; killed without a word is usually the kernel, out of memory: lower "
            "training.batch.micro, or give each worker more memory",
        )
        return {**failure.to_dict(), "rank": self.rank, "known": False, "victim": False, "replaced": False, "logTail": self.detail}


def died(error: object) -> list[Death]:
    """The workers whose processes ended by themselves, by rank; none when a node of the group went."""
    if not isinstance(error, WorkerGroupError):
        return []
    causes = list(actors(error))
    if any(cause.preempted or NODE in str(cause) for _, cause in causes):
        return []
    found = [(rank, PROCESS.search(str(cause)), ADDRESS.search(str(cause))) for rank, cause in causes]
    return [
        Death(rank, (said["detail"] or "").strip(), at[1] if at else "") for rank, said, at in found if said and said["kind"] not in BY_RAY
    ]


def actors(error: WorkerGroupError) -> Iterator[tuple[int, ActorDiedError]]:
    for rank, failure in sorted(error.worker_failures.items()):
        cause = failure.health_check_failure if isinstance(failure, WorkerHealthCheckFailedError) else failure
        if isinstance(cause, ActorDiedError):
            yield rank, cause


def remains(address: str, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Whether Ray's own process on the node at `address` still answers, a moment after its worker is gone."""
    sleep(SETTLING)
    node = next((node for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == address), None)
    if node is None:
        return False
    try:
        socket.create_connection((address, node["NodeManagerPort"]), timeout=SETTLING).close()
    except OSError:
        return False
    return True
