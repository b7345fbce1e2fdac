"""Digests of weights that nobody trains: checkpoints leave them out, and a run goes on only with the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn


def frozen_digest(networks: Mapping[str, nn.Module], origins: Mapping[str, str] | None = None) -> str | None:
    """A digest of all weights of the networks that are not trained, which checkpoints leave out; None when there are none. Before DeepSpeed
    splits them. `origins` are digests of the files that those of a network were read from, which stand for them: gigabytes are not hashed
    at every start."""
    read = {name: origin for name, origin in (origins or {}).items() if origin}
    frozen = (
        (f"{name}.{path}", p) for name, network in sorted(networks.items()) if name not in read for path, p in network.named_parameters()
    )
    found = _digest((path, parameter) for path, parameter in frozen if not parameter.requires_grad)
    still = {name: origin for name, origin in read.items() if any(not p.requires_grad for p in networks[name].parameters())}
    if not still:
        return found
    return f"sha256:{hashlib.sha256(json.dumps([found, still], sort_keys=True).encode()).hexdigest()}"


def hidden_digest(objective: object, networks: Mapping[str, nn.Module]) -> str | None:
    """The same for modules that an objective has beside the networks: features, a reference model. Nobody trains those either."""
    known = {id(parameter) for network in networks.values() for parameter in network.parameters()}
    found: list[tuple[str, nn.Parameter]] = []
    for name, module in _modules("objective", objective, depth=3):
        found += [(f"{name}.{path}", parameter) for path, parameter in module.named_parameters() if id(parameter) not in known]
    return _digest(sorted(found, key=lambda item: item[0]))


def _modules(name: str, value: object, depth: int) -> Iterator[tuple[str, nn.Module]]:
    """The modules among an object's attributes, in its lists and dicts, and a few levels down."""
    if isinstance(value, nn.Module):
        yield name, value
        return
    inside: Mapping[Any, object] = {}
    if isinstance(value, Mapping):
        inside = value
    elif isinstance(value, list | tuple):
        inside = dict(enumerate(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        inside = vars(value)
    for key, held in inside.items() if depth else ():
        yield from _modules(f"{name}.{key}", held, depth - 1)


def _digest(parameters: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    found, some = hashlib.sha256(), False
    for path, parameter in parameters:
        some = True
        found.update(f"{path} {parameter.dtype} {tuple(parameter.shape)}".encode())
        found.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{found.hexdigest()}" if some else None
