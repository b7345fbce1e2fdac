"""Which elements of a checkpoint go where, and what is said of one that does not fit, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.checkpointer.matching import Indexes, Move, begins_anew, match, mismatch, resettable
from trainjobs.checkpoints import Commit
from trainjobs.checkpoints.tensors import Overlap, Slice
from trainjobs.engine.parts import Part, part

FILE = "net.safetensors"


def cut(start: int, length: int, shape: tuple[int, ...] = (12,), key: str = "fp32/w") -> Slice:
    return Slice(key, "F32", shape, start, length)


def wanted(start: int, length: int, shape: tuple[int, ...] = (12,), key: str = "fp32/w") -> Part:
    return part(key, torch.zeros(length), shape, start)


def shards(*slices: tuple[int, int]) -> Indexes:
    """By rank, the elements that each has saved."""
    return {rank: {FILE: [cut(start, length)]} for rank, (start, length) in enumerate(slices)}


def moved(moves: list[Move]) -> list[tuple[int, int, int, int]]:
    """(rank, from, to, how many)"""
    return [(move.rank, move.overlap.source, move.overlap.target, move.overlap.length) for move in moves]


@pytest.mark.parametrize(
    ("indexes", "part", "own", "moves"),
    [
        # As many workers as saved: each takes what is its own.
        (shards((0, 6), (6, 6)), (6, 6), 1, [(1, 0, 0, 6)]),
        # Whole on every rank: the own one, else the first.
        (shards((0, 12), (0, 12)), (0, 12), 1, [(1, 0, 0, 12)]),
        (shards((0, 12), (0, 12)), (0, 12), 0, [(0, 0, 0, 12)]),
        # Fewer, and more, workers than saved.
        (shards((0, 4), (4, 4), (8, 4)), (0, 12), 0, [(0, 0, 0, 4), (1, 0, 4, 4), (2, 0, 8, 4)]),
        (shards((0, 12)), (3, 3), 0, [(0, 3, 0, 3)]),
        # Cut elsewhere.
        (shards((0, 5), (5, 7)), (3, 6), 0, [(0, 3, 0, 2), (1, 0, 2, 4)]),
    ],
)
def test_elements_are_found_where_they_are(
    indexes: Indexes, part: tuple[int, int], own: int, moves: list[tuple[int, int, int, int]]
) -> None:
    ours = wanted(*part)
    found, missing = match({"net": [ours]}, indexes, own)
    assert moved(found) == moves
    assert missing == []
    assert all(move.part is ours and move.file == FILE for move in found)


@pytest.mark.parametrize(
    ("indexes", "ours"),
    [
        (shards((0, 5)), wanted(3, 6)),
        (shards((0, 5), (0, 5)), wanted(0, 10)),  # the same five elements twice are not ten
        (shards((0, 5)), wanted(5, 3)),
        (shards((0, 12)), wanted(0, 12, (3, 4))),  # as many elements, of another shape
        (shards((0, 12)), wanted(0, 12, key="fp32/v")),
        ({0: {"other.safetensors": [cut(0, 12)]}}, wanted(0, 12)),
        ({0: {}}, wanted(0, 12)),
    ],
)
def test_what_is_nowhere_is_missing(indexes: Indexes, ours: Part) -> None:
    _, missing = match({"net": [ours]}, indexes, 0)
    assert missing == [("net", ours)]


def test_networks_do_not_take_each_others_tensors() -> None:
    index = {0: {"a.safetensors": [cut(0, 2, (2,))], "b.safetensors": [cut(0, 2, (2,))]}}
    ours, theirs = wanted(0, 2, (2,)), wanted(0, 2, (2,))
    moves, missing = match({"a": [ours], "b": [theirs]}, index, 0)
    assert [(move.file, move.part is ours) for move in moves] == [("a.safetensors", True), ("b.safetensors", False)]
    assert missing == []


CONTENTS: dict[str, Any] = {"parameters": {"net": 4}, "optimizers": {"net": "adamw"}, "ema": True}
COMMIT = Commit(3, 1, 70, 700, "steps/000000000070-a1", "sha256:0", 0.0, {**CONTENTS, "frozen": None, "world": 2}, {}, 10, 2)


def saved(**metadata: Any) -> Commit:
    return replace(COMMIT, metadata={**COMMIT.metadata, **metadata})


@pytest.mark.parametrize("reset", [False, True])
def test_a_checkpoint_of_the_same_goes_on(reset: bool) -> None:
    assert not begins_anew(COMMIT, CONTENTS, {"frozen": None}, reset)
    assert not begins_anew(COMMIT, {**CONTENTS, "ema": False}, {}, reset), "an average that is not wanted any more"


@pytest.mark.parametrize(
    ("commit", "why"),
    [
        (saved(optimizers={"net": "sgd"}), "net: sgd there, adamw here"),
        (saved(optimizers={}), "net: None there, adamw here"),
        (saved(ema=False), "no moving average there"),
        (saved(ema=False, optimizers={"net": "sgd"}), "net: sgd there, adamw here; no moving average there"),
    ],
)
def test_an_optimizer_begins_anew_only_where_the_manifest_allows_it(commit: Commit, why: str) -> None:
    with pytest.raises(JobError) as refused:
        begins_anew(commit, CONTENTS, {}, False)
    assert (refused.value.code, refused.value.why, refused.value.where) == ("GTJ0208", why, COMMIT.prefix)
    assert "allowOptimizerReset" in str(refused.value.how)
    assert begins_anew(commit, CONTENTS, {}, True)


def test_averages_of_fewer_networks_than_before_go_on_and_of_more_do_not() -> None:
    """Checkpoints of before averaged every network, a GAN's discriminator too."""
    of = {"parameters": {"d": 4, "g": 4}, "optimizers": {"d": "adamw", "g": "adamw"}, "ema": True}
    commit = saved(**of)
    assert not begins_anew(commit, {**of, "averaged": ["g"]}, {}, False)
    assert not begins_anew(commit, {**of, "averaged": ["d", "g"]}, {}, False)
    with pytest.raises(JobError, match="no moving average of d there"):
        begins_anew(saved(**of, averaged=["g"]), {**of, "averaged": ["d", "g"]}, {}, False)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("commit", "why"),
    [
        (replace(COMMIT, metadata={}), "by a version whose files this one does not read"),
        (saved(parameters={"net": 5}), "it has net of 5 tensors, the manifest's model has net of 4 tensors"),
        (saved(parameters={"net": 4, "critic": 2}), "it has critic of 2 tensors, net of 4 tensors, the manifest's"),
        (saved(frozen="sha256:1"), "the weights that are not trained"),
    ],
)
def test_another_model_is_refused_whatever_the_manifest_allows(commit: Commit, why: str, reset: bool) -> None:
    with pytest.raises(JobError) as refused:
        begins_anew(commit, CONTENTS, {}, reset)
    assert refused.value.code == "GTJ0208"
    assert why in str(refused.value.why)


def test_a_mismatch_names_three_tensors_and_counts_the_others() -> None:
    indexes = {0: {FILE: [cut(0, 12, (3, 4)), cut(0, 2, (2,), "ema/w")]}}
    missing = [("net", wanted(0, 12, (4, 3)))]
    assert mismatch(COMMIT, missing, indexes).why == "net.w is [3, 4] there and [4, 3] here"
    missing += [("net", wanted(0, 3, (3,), "ema/w")), ("net", wanted(0, 1, (), "exp_avg/w"))]
    told = mismatch(COMMIT, missing, indexes)
    assert told.why == "net.w is [3, 4] there and [4, 3] here; net.w (ema) is [2] there and [3] here; net.w (exp_avg) [] is not there"
    assert (told.code, told.where) == ("GTJ0208", COMMIT.prefix)
    assert "step 70" in told.what
    missing += [("other", wanted(0, 1, (1,), f"fp32/x{number}")) for number in range(4)]
    assert str(mismatch(COMMIT, missing, indexes).why).endswith("(exp_avg) [] is not there and 4 more")


@pytest.mark.parametrize(
    ("key", "anew"), [("fp32/layer.weight", False), ("buffer/mean", False), ("exp_avg/w", True), ("step/w", True), ("ema/w", True)]
)
def test_what_begins_anew_with_the_optimizer(key: str, anew: bool) -> None:
    assert resettable(key) is anew


def test_an_overlap_is_of_one_tensor() -> None:
    """What `match` counts on: the elements that a part asks for, in the part's own count."""
    found, _ = match({"net": [wanted(2, 4)]}, shards((0, 3), (3, 9)), 0)
    assert [move.overlap for move in found] == [Overlap(2, 0, 1), Overlap(0, 1, 3)]
