"""What is known of the clouds' GPU nodes: how many GPUs, what pods can have of a node, fabric devices, list prices.

catalogue.json is made by .ci/catalogue.py from published tables; `sources` says which, and of what day. A price of it is a list price, on
demand; a spot price is a market's, and is never here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trainjobs.api.fields import DecimalString

log = logging.getLogger(__name__)

PATH = Path(__file__).parent / "catalogue.json"
LARGEST = 4 * 2**20  # bytes; what is shipped has 20 KiB
SOURCE = 253  # characters


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


Word = Annotated[str, Field(max_length=63), AfterValidator(_printable)]
_names = TypeAdapter[str](Word)


class Node(BaseModel):
    """One type of node. `cpu` and `memory` are what is left for pods, as Kubernetes writes quantities; "" where nobody knows."""

    model_config = ConfigDict(frozen=True, strict=True)

    provider: Word
    gpu: Word
    gpus: Annotated[int, Field(ge=1, le=1024)]
    cpu: Word = ""
    memory: Word = ""
    efa: Annotated[int, Field(ge=0, le=1024)] = 0  # Elastic Fabric Adapters
    nvme_gb: Annotated[int, Field(ge=0)] = Field(0, alias="nvmeGB")
    prices: Mapping[Word, DecimalString] = Field({}, alias="usdPerHour")  # USD per hour, by region


@cache
def nodes() -> Mapping[str, Node]:
    """By the cloud's name of the type. A type whose entry is broken is not there, which is told in the log, once."""
    found: dict[str, Node] = {}
    broken: list[str] = []
    for name, entry in _read()["nodes"].items():
        try:
            _names.validate_python(name)
            found[name] = Node.model_validate(entry)
        except ValidationError:
            broken.append(ascii(name[:63]))
    if broken:
        log.warning("%d of %d node types of %s are broken, and left out: %s", len(broken), len(broken) + len(found), PATH, broken[:5])
    return found


def source(provider: str) -> str:
    """Where the figures of a provider's nodes come from, and of what day; "" where there are none."""
    found = "".join(one for one in str(_read()["sources"].get(provider, ""))[: 2 * SOURCE] if one.isprintable())
    return found[:SOURCE]


def efa_of(instance_type: str | None, gpu: str | None, gpus: int) -> int | None:
    """Adapters of a node: of that type, else of the only number that AWS's nodes with so many of these GPUs have. None: not known."""
    if instance_type is not None:
        found = nodes().get(instance_type)
        return found.efa if found else None
    numbers = {node.efa for node in nodes().values() if node.provider == "aws" and node.gpu == gpu and node.gpus == gpus}
    return numbers.pop() if len(numbers) == 1 else None


@cache
def _read() -> Mapping[str, Mapping[str, Any]]:
    """The file's two tables; empty ones, and a line in the log, where it cannot be read: then nobody knows what a node costs."""
    try:
        with PATH.open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        found = json.loads(text)
        tables = {name: found[name] for name in ("sources", "nodes")}
        if not all(isinstance(table, dict) for table in tables.values()):
            raise TypeError("its tables are none")
        return tables
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("the catalogue of nodes cannot be read, so no list price is known (%s): %s: %s", PATH, type(error).__name__, error)
        return {"sources": {}, "nodes": {}}
