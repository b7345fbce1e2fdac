"""The moving average of the weights, and buffers that all ranks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainjobs.engine.engine import Engine
from trainjobs.engine.parts import Part, part
from trainjobs.world import World


class Ema:
    """An exponential moving average of every given network's trained weights, in fp32, each rank holding 1/W of it.

    Below ZeRO stage 3 each parameter belongs to one rank, dealt out so that sizes come out even; at stage 3 each rank averages the
    shard that ZeRO gave it. Either way an update needs no communication.
    """

    def __init__(self, engines: Mapping[str, Engine], world: World) -> None:
        self.engines, self.world = engines, world
        self._owner = self._deal()
        self.average: dict[str, Tensor] = {key: engine.owned(parameter).float().clone() for key, engine, parameter in self._mine()}

    def update(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights, after a step."""
        if not self.average:
            return
        live = [engine.owned(parameter).float() for _, engine, parameter in self._mine()]
        torch._foreach_lerp_(list(self.average.values()), live, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The networks compute with the averages within the block. Every rank must enter it."""
        kept = {key: engine.owned(parameter).clone() for key, engine, parameter in self._mine()}
        self._write(self.average)
        try:
            yield
        finally:
            self._write(kept)

    def parts(self, network: str) -> Iterator[Part]:
        """This rank's averages of a network, live; keys are `ema/<parameter>`."""
        for key, engine, parameter in self._mine():
            if engine.name == network:
                shape, start, length = engine.span(parameter)
                if length:
                    average = self.average[key]
                    yield part(f"ema/{key.removeprefix(f'{network}.')}", average if engine.stage < 3 else average[:length], shape, start)

    def restart(self) -> None:
        """Average from here on: the weights of now count as all that were."""
        for key, engine, parameter in self._mine():
            self.average[key].copy_(engine.owned(parameter))

    def _parameters(self) -> Iterator[tuple[str, Engine, nn.Parameter]]:
        for name, engine in self.engines.items():
            for path, parameter in engine.trained:
                yield f"{name}.{path}", engine, parameter

    def _deal(self) -> dict[str, int]:
        """The rank that owns each parameter: the largest first, each to the rank that has least so far."""
        load = [0] * self.world.size
        owner = {}
        for key, _, parameter in sorted(self._parameters(), key=lambda item: (-item[2].numel(), item[0])):
            owner[key] = load.index(min(load))
            load[owner[key]] += parameter.numel()
        return owner

    def _mine(self) -> Iterator[tuple[str, Engine, nn.Parameter]]:
        for key, engine, parameter in self._parameters():
            if engine.stage == 3 or self._owner[key] == self.world.rank:
                yield key, engine, parameter

    def _write(self, values: Mapping[str, Tensor]) -> None:
        """Put what each rank holds of every parameter into the networks of all ranks."""
        with torch.no_grad():
            for key, engine, parameter in self._parameters():
                if engine.stage == 3:
                    shards = [torch.empty_like(values[key]) for _ in range(self.world.size)]
                    if self.world.size > 1:
                        dist.all_gather(shards, values[key])
                    else:
                        shards = [values[key]]
                    with engine.whole([parameter], write=True):
                        if self.world.leads:
                            parameter.copy_(torch.cat(shards)[: parameter.numel()].view_as(parameter))
                    continue
                if key in values:
                    parameter.copy_(values[key])
                if self.world.size > 1:
                    dist.broadcast(parameter.detach(), src=self._owner[key])


def share_buffers(engines: Mapping[str, Engine], world: World) -> None:
    """Give every rank rank 0's buffers: running statistics of batch norm differ by rank, and DeepSpeed leaves them so."""
    if world.size > 1:
        for engine in engines.values():
            for buffer in engine.module.buffers():
                dist.broadcast(buffer, src=0)
