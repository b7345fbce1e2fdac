"""Workers in pods of their own: how their folders reach that of the driver."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray

from trainjobs.api.errors import JobError
from trainjobs.run import failures, progress
from trainjobs.run.outcome import Outcome
from trainjobs.workers.relay import Admission, Collector, Notices, Piece, Relay

CALL_SECONDS = 60.0  # within which the driver's side answers a worker


def collector(run: Path, driver: float) -> Any:
    """An actor beside this process that keeps the run folder for workers elsewhere. It holds no state, so it may die and come back."""
    here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    return ray.remote(Collector).options(num_cpus=0, label_selector=here, max_restarts=-1, max_task_retries=-1).remote(str(run), driver)


class Away:
    """The ledger, and the folder, of a worker that is elsewhere than its driver."""

    def __init__(self, collector: Any, since: float, folder: Path) -> None:
        """`collector` is an actor. `since` is when the driver started, `folder` this worker's own."""
        self._collector, self._since, self._folder = collector, since, folder
        self._open = ExitStack()
        self._relay: Relay | None = None  # of rank 0

    def __enter__(self) -> Away:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def verdict(self, retries: int) -> JobError | None:
        verdict: Admission = self._ask("verdict", retries)
        if verdict.over is None:
            for name, data in verdict.records.items():
                (self._folder / name).write_bytes(data)
            progress.timeline(self._folder, self._since)("workers")
            self._relay = self._open.enter_context(Relay(self._folder, lambda pieces: self._exchange(verdict.group, pieces)))
        return verdict.over

    def record(self, rank: int, error: Exception) -> None:
        if self._relay is not None:
            self._relay.carry()  # when the account is known, this worker may be ended
        self._ask("enter", failures.account(rank, error, "the job's log"))

    def explained(self) -> bool:
        return bool(self._ask("explained"))

    def ended(self, outcome: Outcome) -> None:
        self._ask("ended", outcome)

    def _exchange(self, group: int, pieces: list[Piece]) -> Notices:
        return dict(self._ask("exchange", group, pieces))

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._collector, method).remote(*arguments), timeout=CALL_SECONDS)


def own_folder(run: Path, job: str, rank: int) -> Path:
    """A worker's run folder on its own machine, emptied of what another one left, with `job` as its job.json.

    A manifest that names no place for checkpoints means the run folder: that is the driver's path, on whatever is mounted there. What is
    fetched and derived lies in one cache for all of the run's workers on the machine, and stays there for the group that follows.
    """
    # No name of a job has an underscore, so no other run's folder is emptied.
    name = f"gentrain-{run.name.removeprefix('gentrain-')}"
    folder, cache = (Path(tempfile.gettempdir()) / f"{name}_{whose}" for whose in (rank, "cache"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    cache.mkdir(mode=0o700, exist_ok=True)
    (folder / "logs").mkdir()
    (folder / "job.json").write_text(job)
    (folder / "cache").symlink_to(cache)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").symlink_to(run / "checkpoints")
    return folder


def threads() -> int:
    """Cores of this worker's pod, which is a node of Ray's that it has to itself."""
    mine = ray.get_runtime_context().get_node_id()
    return max(1, int(next((node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == mine), 1)))
