"""`gtj prepare` on a Ray cluster: a task for each shard.

What makes shards (an open data set, a store) does not travel: each process of the cluster opens both for itself, once, and goes on only
if it sees the same data as the driver. Tasks of a machine that is lost are made again on another by Ray.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainjobs.api.errors import JobError

if TYPE_CHECKING:
    from trainjobs.data.prepare_shards import Entry, Shards, Task

CLEAN_SECONDS = 20.0
ANSWER_SECONDS = 20.0  # within which the head of a cluster takes a connection
_NAMED = re.compile(r"(?:ray://)?\[?([^/\]]+)\]?:([0-9]{1,5})")


@dataclass(frozen=True)
class OnRay:
    """As prepare.Work. `spec` is JSON; `out` the URI of the place."""

    spec: str
    out: str
    shard_size: int

    def __call__(self, one: Callable[[Task], Entry], tasks: Sequence[Task]) -> Iterable[tuple[Task, Entry]]:
        """JobErrors of `one`, with the machine that they are from; GTJ0213 when processes are lost again and again. After an error no more
        are begun."""
        remote = ray.remote(num_cpus=1)(made)
        begun = {remote.remote(self.spec, self.out, self.shard_size, task): task for task in tasks}
        try:
            left = list(begun)
            while left:
                (first,), left = ray.wait(left, num_returns=1)
                yield begun[first], self._entry(first, begun[first])
        finally:
            for reference in begun:
                ray.cancel(reference, force=False)
            self._clean()

    def _entry(self, reference: Any, task: Task) -> Entry:
        try:
            entry, error, node = ray.get(reference)
        except RayTaskError:
            raise  # a defect of ours, with its traceback
        except RayError as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            how = "run the same command again: it goes on; where memory ran out, prepare anew with a smaller --shard-size"
            raise JobError("GTJ0213", "a process that made a shard was lost, retries used up", where=task.name, why=why, how=how) from error
        if error is None:
            return dict(entry)
        raised = JobError.from_dict(error)
        why = f"{raised.why}; seen from {node}" if raised.why else f"seen from {node}"
        raise JobError(raised.code, raised.what, where=raised.where, why=why, how=raised.how)

    def _clean(self) -> None:
        """Takes away what the machines keep of the data; those that do not answer have it in a folder for what is temporary."""
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        here = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
        emptied = ray.remote(num_cpus=0, max_retries=0)(clean)
        with suppress(RayError):
            ray.get([emptied.options(scheduling_strategy=node).remote(self.spec, self.out) for node in here], timeout=CLEAN_SECONDS)


@contextmanager
def cluster(spec: str, out: str, shard_size: int) -> Iterator[OnRay]:
    """On the cluster that RAY_ADDRESS names, else on one that runs on this machine. JobError GTJ0302."""
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if (named := _NAMED.fullmatch(address)) is not None:  # Ray itself tries for minutes
            socket.create_connection((named[1], int(named[2])), ANSWER_SECONDS).close()
        ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        where = f"RAY_ADDRESS={address}" if address else "this machine"
        why = " ".join(str(error).split())[:200]
        how = "run this in a pod of the cluster, or set RAY_ADDRESS; --no-ray prepares on this machine"
        raise JobError("GTJ0302", "no Ray cluster can be reached", where=where, why=why, how=how) from error
    try:
        yield OnRay(spec, out, shard_size)
    finally:
        ray.shutdown()


def made(spec: str, out: str, shard_size: int, task: Task) -> tuple[Entry | None, dict[str, Any] | None, str]:
    """In a process of the cluster: (a shard's entry, or its JobError as a dictionary; the machine)."""
    node = ray.util.get_node_ip_address()
    try:
        return opened(spec, out, shard_size).make(task), None, node
    except JobError as error:
        return None, error.to_dict(), node


@functools.cache
def opened(spec: str, out: str, shard_size: int) -> Shards:
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # tokenizers would take all cores for each of the processes of a machine
    from trainjobs.api.job import Spec
    from trainjobs.data.dataset import Reading
    from trainjobs.data.prepare import elsewhere
    from trainjobs.stores.open import open_store

    return elsewhere(Spec.model_validate_json(spec), open_store(out), Reading(folder(spec, out)), shard_size)


def folder(spec: str, out: str) -> Path:
    """Of a machine, for what is fetched and found out of the data; shared by its processes, and by work that goes on."""
    name = hashlib.sha256(f"{spec}\n{out}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"gentrain-prepare-{name}"


def clean(spec: str, out: str) -> None:
    shutil.rmtree(folder(spec, out), ignore_errors=True)
