"""How many workers there is room for on the nodes of a Ray cluster, and which size an elastic group takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

TRIES = 3  # restarts in a row at one size without a step gained, after which a smaller one is taken

Node = Mapping[str, Any]  # as ray.nodes() has it


def room(nodes: Sequence[Node], going: Collection[str], needs: Mapping[str, float], *, each: int = 1, spread: bool) -> int:
    """How many processes that need so much of each resource fit on the nodes that stay, in workers of `each`; with `spread`, at most one
    worker on a node.

    What is counted is what a node has, not what is free: the group that asks uses it.
    """
    found = [fitting(node, needs) // each for node in nodes if node["Alive"] and node["NodeID"] not in going]
    return each * sum(min(1, count) if spread else count for count in found)


def fitting(node: Node, needs: Mapping[str, float]) -> int:
    return min(int(node["Resources"].get(name, 0.0) // amount) for name, amount in needs.items() if amount > 0)


def whole(nodes: Sequence[Node], needs: Mapping[str, float]) -> dict[str, float]:
    """What a worker's node has of what a worker needs: an autoscaler asked for less would put two workers on one node."""
    holding = next((node for node in nodes if node["Alive"] and fitting(node, needs)), None)
    return {name: holding["Resources"][name] if holding else amount for name, amount in needs.items() if amount > 0}


def largest(sizes: Sequence[int], possible: int) -> int:
    """The largest of the allowed sizes that there is room for, or 0."""
    return max((size for size in sizes if size <= possible), default=0)


def narrowed(sizes: Sequence[int], last: int, fruitless: int) -> tuple[int, ...]:
    """The sizes that are still tried when a group of `last` workers has died, the `fruitless`th in a row that gained no step: what there
    is room for may still not run, for want of memory perhaps. The smallest size stays."""
    smaller = tuple(size for size in sizes if size < last)
    return smaller if smaller and fruitless and fruitless % TRIES == 0 else tuple(sizes)
