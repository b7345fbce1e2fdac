"""How many operations a step has beyond those of a loop that is written out by hand: on a GPU each is a kernel, or a wait for one.

Counted by torch's dispatcher in the one process of ZeRO stage 0, at a step that tells no metrics; views are none. Of what is beyond the
plain loop (bench/plain_loops.py) most is noise: a draw that does not depend on how a batch is cut (trainjobs/noise.py) has 40 operations
where torch's generator has one. On a GPU it is one kernel (trainjobs/noise_kernel.py); here something else writes its numbers. The rest
are the norms of the gradient's parts, and the data: which it is, found on the CPU, and bytes made numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from bench import plain_loops
from bench.training import FAMILIES, RATE, SEED, manifest
from trainjobs import loop, noise, noise_kernel
from trainjobs.api.job import Job
from trainjobs.data import open_source
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.optim.schedule import rate
from trainjobs.world import World

pytestmark = pytest.mark.slow  # importing the loop imports DeepSpeed

# Those of noise, and all others, beyond the plain loop's; and those of noise where a kernel draws it.
EXTRA = {"gan": (86, 8), "vae": (43, 6), "diffusion": (73, 5), "language": (0, 3)}
BY_KERNEL = {"gan": 2, "vae": 1, "diffusion": 2}
STEPS, BATCH = 6, 8
VIEWS = (
    "view _unsafe_view reshape t transpose permute expand slice select unsqueeze squeeze detach alias as_strided split unbind lift_fresh"
)
EMPTY = "lift_fresh empty empty_strided empty_like new_empty new_empty_strided _record_function_enter_new _record_function_exit"
FREE = frozenset(f"{VIEWS} {EMPTY}".split(" "))


class Operations(TorchDispatchMode):
    """Counts them by whether noise.py asked for them; `marks` are the counts at the moments of `mark`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[bool]()
        self.marks: list[Counter[bool]] = []

    def mark(self) -> None:
        self.marks.append(Counter(self.count))

    def least(self) -> Counter[bool]:
        """Of the step that had fewest: some begin or end something."""
        return min((after - before for before, after in pairwise(self.marks)), key=Counter.total)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.split("::")[1] not in FREE:
            frame = sys._getframe(1)
            while frame.f_back and not frame.f_code.co_filename.endswith("/trainjobs/noise.py"):
                frame = frame.f_back
            self.count[frame.f_back is not None] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("operations")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    yield folder
    dist.destroy_process_group()


class Launch:
    """Stands in for the kernel, which needs a GPU: writes numbers of the kind that is asked for. What the operator does is not counted."""

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(samples: torch.Tensor, out: torch.Tensor, key: int, count: int, words: int, blocks: int, high: int, **kind: int) -> None:
            match kind["KIND"]:
                case noise_kernel.NORMAL:
                    out.normal_()
                case noise_kernel.UNIFORM:
                    out.uniform_()
                case noise_kernel.INTEGERS:
                    out.random_(high)
                case _:
                    out.random_()

        return launch


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise as where a device has the kernel, up to its launch."""
    monkeypatch.setattr(noise_kernel, "_fill", Launch())
    monkeypatch.setattr(noise, "_kernel", lambda device: noise_kernel)


@pytest.mark.parametrize("family", EXTRA)
def test_a_step_has_no_more_operations_than_it_had(family: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_noise, others = beyond(family, place / family, monkeypatch)
    assert by_noise <= EXTRA[family][0], f"{by_noise} of noise"
    assert others <= EXTRA[family][1], f"{others} beside noise"


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("family", BY_KERNEL)
def test_a_draw_by_the_kernel_is_one_operation(family: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_noise, others = beyond(family, place / f"{family}-kernel", monkeypatch)
    assert 0 < by_noise <= BY_KERNEL[family], f"{by_noise} of noise"
    assert others <= EXTRA[family][1], f"{others} beside noise"


def beyond(family: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """A step's operations beyond the plain loop's: those of noise, and all others. The run is in the folder `run`."""
    job = Job.model_validate(manifest(family, FAMILIES[family] | {"steps": STEPS, "batch": BATCH}))
    source = open_source(job.spec, run.parent / "cache")
    positions = torch.arange(4 * BATCH)
    data = next(iter(source.batch(positions, SEED, Noise.of(SEED, 0, "bench", positions)).values())).contiguous()
    ours, plain = Operations(), Operations()

    def begun(schedule: Any, step: int, total: int) -> float:
        ours.mark()
        return rate(schedule, step, total)

    def clock(steps: int, step: Any) -> tuple[float, float]:
        for _ in range(steps):
            plain.mark()
            step()
        return 0.0, 0.0

    run.mkdir()
    monkeypatch.setattr(loop, "rate", begun)
    with ours:
        loop.train(job, run, World(0, 1, torch.device("cpu")), sync_every=STEPS)
    monkeypatch.setattr(plain_loops, "clock", clock)
    with plain:
        plain_loops.LOOPS[family](build(job.spec, source.info).modules, data, BATCH, RATE, STEPS, False)
    theirs = plain.least().total()
    assert theirs > 50, "nothing was counted"
    return ours.least()[True], ours.least()[False] - theirs
