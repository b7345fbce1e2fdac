"""Sparse weights and sparse activations: `training.sparsity`.

Weights by proximal steps, which make exact zeros, where the gradient of |w| would only let them jitter around 0. After each step of the
optimizer, with its rate lr,

    w <- sign(w) max(|w| - lr lambda, 0)

(Parikh and Boyd, "Proximal algorithms", 2014, sections 4.2 and 6.5.2). It is done within the optimizer's step, on the fp32 weights that it
has: an edit of the module would be lost from ZeRO stage 1 on. Of matrices and filters, which are a group of their own for it; biases, norms
and embeddings are left out.

Activations by a term of the loss, lambda E mean |h|, of every layer that a pattern names: a mean over samples, whatever the cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.training import Sparsity
from trainjobs.objectives.deferred import Metrics
from trainjobs.objectives.freezing import MARK
from trainjobs.objectives.phase import Batch, Loss, Network, Phase
from trainjobs.optim.groups import Group

SPARSE = f"{MARK}sparse"


def cut_by_kind(networks: Mapping[str, Network], sparsity: Sparsity) -> dict[str, Network]:
    """The networks with matrices and filters in groups of their own, where weights are to be sparse."""
    return {name: _cut(name, network) if sparsity.weights and network.groups != {} else network for name, network in networks.items()}


def marked(groups: Mapping[str, Sequence[Group]], sparsity: Sparsity) -> dict[str, list[Group]]:
    """The groups, of which those that were cut for it shrink."""
    return {
        name: [replace(group, shrinks=sparsity.weights) if group.name.endswith(SPARSE) else group for group in own]
        for name, own in groups.items()
    }


def penalised(phases: Sequence[Phase], networks: Mapping[str, nn.Module], sparsity: Sparsity) -> tuple[Phase, ...]:
    """The phases, whose losses have the term of activations where the network that they train has such layers. JobError GTJ0108 for a
    pattern that names no layer."""
    if not sparsity.activations:
        return tuple(phases)
    named = {f"{name}.{path}": layer for name, network in networks.items() for path, layer in network.named_modules() if path}
    for pattern in sparsity.layers:
        if not any(fnmatchcase(path, pattern) for path in named):
            how = f"names are <network>.<path>, such as {next(iter(named), 'none')}"
            where = "spec.training.sparsity.layers"
            raise JobError("GTJ0108", f"{pattern} names no layer", where=where, how=how)
    found = []
    for phase in phases:
        chosen = [
            layer
            for path, layer in named.items()
            if path.startswith(f"{phase.trains}.") and any(fnmatchcase(path, pattern) for pattern in sparsity.layers)
        ]
        found.append(replace(phase, loss=partial(_with_term, phase.loss, chosen, sparsity.activations)) if chosen else phase)
    return tuple(found)


def _with_term(loss: Loss, layers: Sequence[nn.Module], weight: float, batch: Batch) -> tuple[Tensor, Metrics]:
    with _listening(layers) as heard:
        value, metrics = loss(batch)
    if not heard:
        return value, metrics
    term = torch.stack([h.float().abs().mean() for h in heard]).mean()
    return value + weight * term, {**metrics, "sparsity/activations": term.detach()}


@contextmanager
def _listening(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What the layers put out within the block, with its graph."""
    heard: list[Tensor] = []

    def hear(layer: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            heard.append(output)

    handles = [layer.register_forward_hook(hear) for layer in layers]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _cut(name: str, network: Network) -> Network:
    groups = network.groups
    if groups is None:
        groups = {name: [parameter for parameter in network.module.parameters() if parameter.requires_grad]}
    rows = {id(own) for layer in network.module.modules() if isinstance(layer, nn.Embedding) for own in layer.parameters()}
    cut: dict[str, list[nn.Parameter]] = {}
    thaws: dict[str, int] = {}
    for group, parameters in groups.items():
        for parameter in parameters:
            part = f"{group}{SPARSE}" if parameter.dim() > 1 and id(parameter) not in rows else group
            cut.setdefault(part, []).append(parameter)
            if group in network.thaws:
                thaws[part] = network.thaws[group]
    return replace(network, groups=cut, thaws=thaws)
