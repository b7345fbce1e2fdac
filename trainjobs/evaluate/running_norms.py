"""Batch norm's running statistics for the average of the weights.

They are of what the weights themselves compute; a network with the averaged weights computes something else, and normalised by these its
samples are worse than those of either (docs/how-to/training.md has figures). So they are estimated anew from samples that are drawn with
the average, as Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018 (arXiv 1803.05407, section
3.2), do it over the data: a plain mean over all batches. The noise of these samples is fixed, and their batch is one size whatever a
training batch is cut into: the statistics depend on nothing but the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from trainjobs.api.job import Spec
from trainjobs.evaluate.evaluation import BATCHES, ROWS, conditions
from trainjobs.evaluate.setting import Setting
from trainjobs.noise import Noise
from trainjobs.objectives.phase import At, Batch

_Norm = nn.modules.batchnorm._BatchNorm


@contextmanager
def estimated(setting: Setting, at: At, averaged: Mapping[str, object]) -> Iterator[None]:
    """In the block, entered by every rank while the networks compute with the averages, batch norm of the networks `averaged` has
    statistics of their samples."""
    device = setting.world.device

    def draw(rows: Tensor) -> None:
        data = {name: value.to(device) for name, value in conditions(setting.source, rows).items()}
        setting.objective.sample(Batch(data, noise(setting.spec, rows, device), ROWS, at))

    with of_samples([setting.networks[name] for name in averaged], draw, setting.inference):
        yield


def noise(spec: Spec, rows: Tensor, device: torch.device) -> Noise:
    """Of the samples that statistics are of."""
    return Noise.of(spec.training.seed, 0, "norms", rows.to(device))


@contextmanager
def of_samples(
    networks: Sequence[nn.Module], draw: Callable[[Tensor], None], inference: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """The same for networks by themselves; `draw` draws the samples with these numbers, int64 [ROWS]. A layer that drawing samples does not
    pass keeps the statistics that it has, and so does every layer afterwards."""
    layers = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, _Norm) and layer.running_mean is not None and layer.running_var is not None
    ]
    kept = [_buffers(layer) for layer in layers]
    momenta, modes = [layer.momentum for layer in layers], [layer.training for layer in layers]
    try:
        if layers:
            with inference():
                _estimate(draw, layers)
            for layer, modes_before in zip(layers, modes, strict=True):
                nn.Module.train(layer, modes_before)
        for layer, before in zip(layers, kept, strict=True):
            if layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == int(before[2]):
                _put(layer, before)
        yield
    finally:
        for layer, before, momentum in zip(layers, kept, momenta, strict=True):
            _put(layer, before)
            layer.momentum = momentum


def _estimate(draw: Callable[[Tensor], None], layers: list[_Norm]) -> None:
    """With a momentum of 1 / n at batch n the running statistics are the mean over the batches."""
    for number in range(BATCHES):
        for layer in layers:
            layer.momentum = 1.0 / (number + 1)
            nn.Module.train(layer, True)
        draw(torch.arange(number * ROWS, (number + 1) * ROWS))


def _buffers(layer: _Norm) -> tuple[Tensor, Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    count = layer.num_batches_tracked
    return layer.running_mean.clone(), layer.running_var.clone(), torch.zeros(()) if count is None else count.clone()


def _put(layer: _Norm, buffers: tuple[Tensor, Tensor, Tensor]) -> None:
    for buffer, value in zip((layer.running_mean, layer.running_var, layer.num_batches_tracked), buffers, strict=True):
        if buffer is not None:
            buffer.copy_(value)
