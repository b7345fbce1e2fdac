"""How many processes train: one for each GPU of a worker."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.plan.group import Group, counted, group


def spec(workers: int | str, gpus: int, batch: int = 48, micro: int | None = None) -> Spec:
    training: dict[str, Any] = {"steps": 1, "batch": {"global": batch, "micro": micro}}
    compute = {"workers": workers, "gpusPerWorker": gpus}
    return Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": training, "compute": compute})


@pytest.mark.parametrize(
    ("workers", "gpus", "machine", "expected"),
    [
        (2, 0, None, Group(1, (2,), False)),
        (2, 1, None, Group(1, (2,), True)),
        (2, 8, None, Group(8, (16,), True)),
        ("1-4", 1, None, Group(1, (1, 2, 3, 4), True)),
        ("1-4", 8, None, Group(8, (8, 16, 24), True)),  # 48 does not divide by 32
        (2, 0, 4, Group(1, (2,), False)),
        (2, 8, 0, Group(1, (2,), False)),  # a laptop without a GPU trains on its processor
        (2, 2, 4, Group(2, (4,), True)),
        ("1-4", 1, 2, Group(1, (1, 2), True)),
        ("1-4", 2, 7, Group(2, (2, 4, 6), True)),
    ],
)
def test_group(workers: int | str, gpus: int, machine: int | None, expected: Group) -> None:
    assert group(spec(workers, gpus), machine) == expected


def test_micro_batches_are_those_of_a_gpu() -> None:
    assert group(spec("1-4", 4, batch=32, micro=4), None).sizes == (4, 8)


@pytest.mark.parametrize(
    ("workers", "gpus", "machine", "what", "how"),
    [
        (2, 1, 1, "2 workers on a machine with 1 GPU", "gtj run --workers 1,"),
        (1, 8, 4, "1 worker of 8 GPUs on a machine with 4 GPUs", "lower compute.gpusPerWorker to at most 4,"),
        ("3-4", 2, 4, "3 workers of 2 GPUs on a machine with 4 GPUs", "gtj run --workers 2,"),
    ],
)
def test_a_machine_with_too_few_gpus_is_told(workers: int | str, gpus: int, machine: int, what: str, how: str) -> None:
    with pytest.raises(JobError) as caught:
        group(spec(workers, gpus), machine)
    assert (caught.value.code, caught.value.what, caught.value.exit_code) == ("GTJ0121", what, 4)
    assert how in (caught.value.how or "")


def test_each_process_needs_a_gpu_of_its_own() -> None:
    assert group(spec(2, 8), None).needs == {"CPU": 1, "GPU": 1}
    assert group(spec(2, 8), 0).needs == {"CPU": 1}


@pytest.mark.parametrize(("workers", "each", "said"), [(1, 1, "1 worker"), (2, 1, "2 workers"), (1, 8, "1 worker of 8 GPUs")])
def test_counted(workers: int, each: int, said: str) -> None:
    assert counted(workers, each) == said
