"""What an evaluation is at, in words, while it goes on: "evaluating 128/256", "drawing 64 samples, 23/64"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from trainjobs.evaluate.score import Dealt, dealt
from trainjobs.world import World


@dataclass
class Looking:
    """`tell` hears the words at every turn and every pass of a network, on each rank. A row that is drawn takes `passes` of them, one
    after the other: in between, the passes that are over count as their share of the rows under way."""

    tell: Callable[[str], None] = lambda words: None
    passes: int = 1
    _words: str = ""
    _total: int = 0
    _done: int = 0  # rows of turns that are over, of all ranks
    _rows: int = 0  # of this turn
    _each: int = 1
    _passed: int = 0

    def turns(self, words: str, total: int, micro: int, world: World, each: int = 1) -> Iterator[Dealt]:
        """This rank's rows of 0..total-1, as `dealt`; each takes `each` passes."""
        self._words, self._total, self._each = words, total, each
        for turn, share in enumerate(dealt(total, micro, world.rank, world.size)):
            self._done, self._passed = turn * micro * world.size, 0
            self._rows = min(micro * world.size, total - self._done)
            self._say()
            yield share

    @contextmanager
    def listening(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        """Hears the passes of these networks while the block runs."""
        hooks = [network.register_forward_pre_hook(self._heard) for network in networks.values()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _heard(self, network: nn.Module, arguments: object) -> None:
        self._say()
        self._passed += 1

    def _say(self) -> None:
        done = self._done + self._rows * min(self._passed, self._each) // self._each
        self.tell(f"{self._words} {done}/{self._total}")
