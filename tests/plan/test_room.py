"""How many workers fit on which nodes, and which size a group takes then."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.plan.room import largest, narrowed, room, whole


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources}


HEAD = node("head", memory=1e9)  # KubeRay's: no CPU for workers
CPU, GPU = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "going", "needs", "spread", "expected"),
    [
        ([HEAD], (), CPU, True, 0),
        ([HEAD, node("a", CPU=4.0), node("b", CPU=4.0)], (), CPU, True, 2),
        ([node("a", CPU=4.0)], (), CPU, False, 4),
        ([node("a", CPU=4.0), node("b", alive=False, CPU=4.0)], (), CPU, False, 4),
        ([node("a", CPU=4.0), node("b", CPU=4.0)], {"b"}, CPU, True, 1),
        ([node("a", CPU=8.0, GPU=4.0), node("b", CPU=8.0, GPU=1.0)], (), GPU, False, 2),
        ([node("a", CPU=8.0)], (), GPU, True, 0),
        ([node("a", CPU=0.5)], (), {"CPU": 1.0, "GPU": 0.0}, True, 0),
    ],
)
def test_room(nodes: list[Any], going: Any, needs: dict[str, float], spread: bool, expected: int) -> None:
    assert room(nodes, going, needs, spread=spread) == expected


@pytest.mark.parametrize(
    ("gpus", "each", "spread", "expected"),
    [
        ((8.0, 8.0), 8, True, 16),
        ((8.0, 7.0), 8, True, 8),  # one of its GPUs is broken: no room for a worker of eight
        ((8.0,), 2, False, 8),
        ((8.0,), 2, True, 2),
        ((3.0,), 2, False, 2),
    ],
)
def test_room_for_workers_of_several_gpus(gpus: tuple[float, ...], each: int, spread: bool, expected: int) -> None:
    nodes = [HEAD, *(node(str(number), CPU=32.0, GPU=count) for number, count in enumerate(gpus))]
    assert room(nodes, (), {"CPU": 1.0, "GPU": 1.0}, each=each, spread=spread) == expected


def test_an_autoscaler_is_asked_for_whole_nodes() -> None:
    assert whole([HEAD, node("a", CPU=4.0, GPU=2.0, memory=1e9)], GPU) == {"CPU": 4.0, "GPU": 2.0}
    assert whole([HEAD, node("a", alive=False, CPU=4.0)], CPU) == CPU, "until one is seen"


@pytest.mark.parametrize(("possible", "expected"), [(0, 0), (1, 0), (2, 2), (3, 2), (7, 4), (100, 8)])
def test_the_largest_size_there_is_room_for(possible: int, expected: int) -> None:
    assert largest((2, 4, 8), possible) == expected


@pytest.mark.parametrize(
    ("last", "fruitless", "left"),
    [
        (8, 0, (2, 4, 8)),
        (8, 2, (2, 4, 8)),
        (8, 3, (2, 4)),
        (4, 6, (2,)),
        (2, 9, (2, 4, 8)),
        (0, 3, (2, 4, 8)),
    ],
)
def test_a_size_that_never_gains_a_step_is_given_up(last: int, fruitless: int, left: tuple[int, ...]) -> None:
    assert narrowed((2, 4, 8), last, fruitless) == left
