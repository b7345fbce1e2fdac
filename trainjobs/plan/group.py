"""The processes that train: one for each GPU of a worker, or one for a worker that has none.

A worker is what a cluster schedules, a pod. DeepSpeed and NCCL want a process for each GPU, and reach those of one pod over NVLink.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec


@dataclass(frozen=True)
class Group:
    each: int  # processes of a worker
    sizes: tuple[int, ...]  # how many processes there may be in all, ascending; one number unless the group is elastic
    on_gpu: bool

    @property
    def needs(self) -> dict[str, float]:
        """Ray's resources of a process."""
        return {"CPU": 1, "GPU": 1} if self.on_gpu else {"CPU": 1}


def group(spec: Spec, gpus: int | None) -> Group:
    """The group of a job on a machine of so many GPUs; None for a cluster, whose pods may come later than the question.

    A machine without any trains on CPU, a process for a worker. GTJ0121 for one that has some, and too few.
    """
    wanted, (low, high) = spec.compute.gpus_per_worker, spec.compute.worker_range
    on_gpu = wanted > 0 and gpus != 0
    each = wanted if on_gpu else 1
    sizes = tuple(size * each for size in (spec.training.batch.sizes(low, high, each) if low < high else (high,)))
    if gpus is None or not on_gpu:
        return Group(each, sizes, on_gpu)
    fitting = tuple(size for size in sizes if size <= gpus)
    if not fitting:
        what = f"{counted(low, each)} on a machine with {gpus} GPU{'s' if gpus > 1 else ''}"
        fewer = f"gtj run --workers {gpus // each}" if gpus >= each else f"lower compute.gpusPerWorker to at most {gpus}"
        why, how = "each process trains on a GPU of its own", f"{fewer}, or set compute.gpusPerWorker to 0 to train on CPU"
        raise JobError("GTJ0121", what, where="spec.compute", why=why, how=how)
    return Group(each, fitting, on_gpu)


def counted(workers: int, each: int) -> str:
    """ "2 workers", "1 worker of 8 GPUs"."""
    said = f"{workers} worker{'s' if workers != 1 else ''}"
    return f"{said} of {each} GPUs" if each > 1 else said
