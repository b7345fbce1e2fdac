"""What is known of the clouds' GPU nodes: how many GPUs, what pods can have of a node, fabric devices, list prices.

catalogue.json is made by .ci/catalogue.py from published tables; `sources` says which, and of what day. A price of it is a list price, on
demand; a spot price is a market's, and is never here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Node:
    """One type of node. `cpu` and `memory` are what is left for pods, as Kubernetes writes quantities; "" where nobody knows."""

    provider: str
    gpu: str
    gpus: int
    cpu: str
    memory: str
    efa: int  # Elastic Fabric Adapters
    nvme_gb: int
    prices: Mapping[str, str]  # USD per hour, by region


@cache
def nodes() -> Mapping[str, Node]:
    """By the cloud's name of the type."""
    return {
        name: Node(
            found["provider"],
            found["gpu"],
            found["gpus"],
            found.get("cpu", ""),
            found.get("memory", ""),
            found.get("efa", 0),
            found.get("nvmeGB", 0),
            found.get("usdPerHour", {}),
        )
        for name, found in _read()["nodes"].items()
    }


def source(provider: str) -> str:
    """Where the figures of a provider's nodes come from, and of what day; "" where there are none."""
    return str(_read()["sources"].get(provider, ""))


def efa_of(instance_type: str | None, gpu: str | None, gpus: int) -> int | None:
    """Adapters of a node: of that type, else of the only number that AWS's nodes with so many of these GPUs have. None: not known."""
    if instance_type is not None:
        found = nodes().get(instance_type)
        return found.efa if found else None
    numbers = {node.efa for node in nodes().values() if node.provider == "aws" and node.gpu == gpu and node.gpus == gpus}
    return numbers.pop() if len(numbers) == 1 else None


@cache
def _read() -> Mapping[str, dict]:  # type: ignore[type-arg]
    return dict(json.loads((Path(__file__).parent / "catalogue.json").read_text()))
