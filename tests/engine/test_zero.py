"""Which elements of which parameter a rank holds, by optimizers that are laid out as DeepSpeed lays them out at each stage.

That DeepSpeed does lay them out so is shown by tests/equivalence; here every layout is small enough to be written down.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.engine.zero import Held, even, held, publish

SHAPES = {"a": (2, 3), "b": (5,), "c": ()}  # 6, 5 and 1 elements: no number of ranks but one divides them all
VALUES = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(10.0, 15.0), "c": torch.tensor(20.0)}
FLAT = torch.cat([value.reshape(-1) for value in VALUES.values()])  # 12 elements


def address(start: int, numel: int) -> SimpleNamespace:
    return SimpleNamespace(start=start, numel=numel)


def partitioned(rank: int, size: int) -> tuple[list[tuple[str, Any]], Any]:
    """Stages 1 and 2: all parameters in a row, padded, cut into equal parts, one for each rank."""
    share = -(-len(FLAT) // size)
    own = torch.nn.functional.pad(FLAT, (0, share * size - len(FLAT)), value=-1.0)[rank * share : (rank + 1) * share].clone()
    parameters: list[tuple[str, Any]] = []
    position = 0
    for name, shape in SHAPES.items():
        count = VALUES[name].numel()
        begin, end = max(position, rank * share), min(position + count, (rank + 1) * share)
        mapping = None
        if begin < end:
            here, there = address(begin - rank * share, end - begin), address(begin - position, end - begin)
            mapping = SimpleNamespace(lp_fragment_address=there, hp_fragment_address=here, param_group_index=0)
        parameters.append((name, SimpleNamespace(shape=shape, _hp_mapping=mapping)))
        position += count
    return parameters, SimpleNamespace(single_partition_of_fp32_groups=[own])


def sharded(rank: int, size: int, *, on_disk: bool = False) -> tuple[list[tuple[str, Any]], Any]:
    """Stage 3: each parameter for itself padded and cut; a rank's parts are laid together."""
    parts, positions, offset = [], {}, 0
    for name, value in VALUES.items():
        share = -(-value.numel() // size)
        whole = torch.nn.functional.pad(value.reshape(-1), (0, share * size - value.numel()), value=-1.0)
        parts.append(whole[rank * share : (rank + 1) * share])
        positions[name] = (0, offset, share)
        offset += share
    flat = torch.empty(0) if on_disk else torch.cat(parts)
    parameters = [(name, SimpleNamespace(ds_shape=torch.Size(SHAPES[name]), ds_numel=VALUES[name].numel(), id=name)) for name in SHAPES]
    optimizer = SimpleNamespace(grad_position=positions, get_param_id=lambda one: one.id, fp32_partitioned_groups_flat=[flat])
    return parameters, optimizer


def layout(stage: int, rank: int, size: int) -> list[Held]:
    if stage == 0:
        return list(held([(name, torch.nn.Parameter(value.clone())) for name, value in VALUES.items()], None, 0, rank))
    parameters, optimizer = sharded(rank, size) if stage == 3 else partitioned(rank, size)
    return list(held(parameters, optimizer, stage, rank))


def put_together(found: list[Held]) -> dict[str, Tensor]:
    """Whole parameters out of pieces, each element of which has to be there, and once."""
    whole = {name: torch.full((value.numel(),), torch.nan) for name, value in VALUES.items()}
    for piece in found:
        target = whole[piece.name][piece.start : piece.start + piece.length]
        assert target.isnan().all(), f"{piece.name} from {piece.start} is held twice"
        target.copy_(piece.of(piece.tensor).reshape(-1))
    return {name: values.reshape(SHAPES[name]) for name, values in whole.items()}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 13])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_ranks_together_hold_every_element_once_and_no_padding(stage: int, size: int) -> None:
    found = [piece for rank in range(size) for piece in layout(stage, rank, size)]
    assert all(torch.equal(value, VALUES[name]) for name, value in put_together(found).items())
    assert all(piece.shape == SHAPES[piece.name] and piece.length > 0 for piece in found)


def test_at_stage_0_every_rank_holds_all_in_the_parameters_themselves() -> None:
    parameter = torch.nn.Parameter(VALUES["a"].clone())
    (found,) = held([("a", parameter)], None, 0, 1)
    assert (found.name, found.shape, found.start, found.length) == ("a", (2, 3), 0, 6)
    assert found.tensor is parameter, "the key of the optimizer's state"
    found.of(found.tensor).fill_(7.0)
    assert parameter.detach().eq(7.0).all(), "live"


@pytest.mark.parametrize("stage", [2, 3])
def test_elements_are_live_in_the_flat_tensor_and_of_its_moments(stage: int) -> None:
    found = next(piece for piece in layout(stage, 0, 1) if piece.name == "b")
    assert 0 < found.offset < found.tensor.numel() - found.length
    found.of(found.tensor).fill_(7.0)
    assert int(found.tensor.eq(7.0).sum()) == found.length
    moments = torch.arange(float(found.tensor.numel()))
    assert found.of(moments).tolist() == list(range(found.offset, found.offset + found.length))


def test_a_parameter_of_which_a_rank_has_nothing_is_left_out() -> None:
    assert [piece.name for piece in layout(2, 1, 2)] == ["b", "c"]
    assert [(piece.name, piece.start, piece.length) for piece in layout(3, 2, 3)] == [("a", 4, 2), ("b", 4, 1)]


def test_weights_that_were_swapped_to_a_disk_are_refused() -> None:
    parameters, optimizer = sharded(0, 2, on_disk=True)
    with pytest.raises(JobError, match=r"GTJ0104.*swapped it out"):
        list(held(parameters, optimizer, 3, 0))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12, 17])
def test_what_every_rank_has_is_saved_in_equal_shares(size: int) -> None:
    whole = layout(0, 0, 1)
    shares = [list(even(whole, rank, size)) for rank in range(size)]
    assert all(torch.equal(value, VALUES[name]) for name, value in put_together([piece for share in shares for piece in share]).items())
    counts = [sum(piece.length for piece in share) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert all(piece.offset == piece.start for share in shares for piece in share), "the parameter is the tensor"


def test_weights_that_were_filled_in_are_published_as_each_stage_wants_it() -> None:
    publish(None, 0)  # the same tensors: nothing is asked of the optimizer
    asked: list[str] = []
    publish(SimpleNamespace(update_lp_params=lambda: asked.append("update")), 2)
    master, half = torch.tensor([1.5, -2.0]), torch.zeros(2, dtype=torch.bfloat16)
    publish(
        SimpleNamespace(
            checkpoint_event_prologue=lambda: asked.append("before"),
            checkpoint_event_epilogue=lambda: asked.append("after"),
            fp32_partitioned_groups_flat=[master],
            fp16_partitioned_groups_flat=[half],
            _unflatten_partitioned_parameters=lambda group: asked.append(f"group {group}: {half.tolist()}"),
        ),
        3,
    )
    assert asked == ["update", "before", "group 0: [1.5, -2.0]", "after"]
