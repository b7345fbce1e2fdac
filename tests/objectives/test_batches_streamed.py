"""A run that goes on amid an epoch, with more or fewer workers and threads, sees the samples that an undisturbed run sees."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.data.streams import Pictures, streamed
from tests.objectives.test_batches import CPU, Alone
from trainjobs.data.ahead import Ahead
from trainjobs.data.bad import BadSamples
from trainjobs.data.mixed import Mixed
from trainjobs.data.order import Order
from trainjobs.objectives.batches import Batches
from trainjobs.objectives.phase import At, Phase
from trainjobs.plan.batch import Cut
from trainjobs.state import State

GLOBAL, STEPS = 12, 22  # of 100 samples: batches span blocks, windows and epochs
PHASE = Phase("train", "net", lambda batch: (torch.zeros(()), {}))


def digests(tmp_path: Path, order: Order, mixed: bool, workers: int, threads: int, state: State, until: int) -> list[list[str]]:
    """Of every step, the digests of the samples of the global batch, in its order: image with its flip, label and caption."""
    seen: dict[int, str] = {}
    sources = []
    for rank in range(workers):
        bad = BadSamples(tmp_path / f"{workers}-{rank}", 100, "s3://bucket")
        more = {"roles": {"image": "png", "label": "cls", "caption": "txt"}, "images": {"augment": ["horizontalFlip"]}, "caption": 12}
        one = streamed(Pictures([30, 0, 17, 25, 33], broken={12, 70}), order, holdout=0.05, bad=bad, **more)
        source = Mixed.of((one, streamed(Pictures([40]), Order(), **more)), (1.0, 0.3), ("s3://a", "s3://b")) if mixed else one
        sources.append(Ahead(source, threads))
    cut = Cut(workers, 2, GLOBAL // workers // 2)
    ranks = [Batches(source, 7, cut, Alone(rank, workers, CPU), {}, nullcontext()) for rank, source in enumerate(sources)]
    for batches in ranks:
        batches.check([PHASE])
    while state.step < until:
        for rank, batches in enumerate(ranks):
            for turn, (batch, _) in enumerate(batches.turn(PHASE, 0, state, At(state.step, state.samples, STEPS))):
                for row, number in enumerate(cut.rows(rank, turn)):
                    parts = [batch.data[name][row].numpy().tobytes() for name in ("image", "label", "caption")]
                    seen[state.samples + number] = hashlib.sha256(b"".join(parts)).hexdigest()
        state.step, state.samples = state.step + 1, state.samples + GLOBAL
    for source in sources:
        source.close()
    ordered = [seen[position] for position in sorted(seen)]
    return [ordered[start : start + GLOBAL] for start in range(0, len(ordered), GLOBAL)]


@pytest.mark.parametrize("order", [Order(), Order("blocks", 2, 2)], ids=["whole", "blocks"])
@pytest.mark.parametrize("mixed", [False, True], ids=["one source", "mixture"])
def test_other_workers_see_the_same_samples(tmp_path: Path, order: Order, mixed: bool) -> None:
    undisturbed = digests(tmp_path, order, mixed, 1, 0, State(), STEPS)
    assert len(undisturbed) == STEPS
    assert len({digest for step in undisturbed for digest in step}) > 60
    for before, after, at in ((2, 1, 5), (1, 2, 11), (2, 3, 17)):
        state = State()
        first = digests(tmp_path, order, mixed, before, 2, state, at)
        second = digests(tmp_path, order, mixed, after, 1, State(state.step, state.samples), STEPS)  # what a checkpoint keeps
        assert first + second == undisturbed
