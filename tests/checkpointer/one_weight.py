"""A network of one weight as tests of going back have it: plain tensors, a store in a folder, one rank of several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpointer.restorer import Restorer
from trainjobs.checkpointer.trained import Trained
from trainjobs.checkpoints import Checkpoints, Commit, open_store
from trainjobs.checkpoints.tensors import encode_index, layout
from trainjobs.engine.parts import Part, part
from trainjobs.state import State
from trainjobs.world import World

SHAPE = (3, 4)


class Engine:
    """A network of one weight and one buffer, of which this rank has elements `start` to `end` of the weight, with an optimizer."""

    uneven = False

    def __init__(self, start: int = 0, end: int = 12, optimizer: str = "adamw", shape: tuple[int, ...] = SHAPE) -> None:
        self.settings = SimpleNamespace(name=optimizer)
        self.trained = [("w", None)]
        self.weight, self.buffer = torch.zeros(end - start), torch.zeros(2)
        self.state: dict[str, Tensor] = {}
        self.asked: list[Any] = []
        self._start, self._shape = start, shape

    def parts(self, *, own: bool) -> Iterator[Part]:
        yield part("fp32/w", self.weight, self._shape, self._start)
        for kind, value in self.state.items():
            yield part(f"{kind}/w", value, self._shape if value.dim() else (), self._start if value.dim() else 0)
        yield part("buffer/b", self.buffer)

    def allocate(self, kinds: Any) -> None:
        self.asked.append(dict(kinds))
        for kind, (_, single) in kinds.items():
            self.state.setdefault(kind, torch.zeros(()) if single else torch.zeros_like(self.weight))

    def forget(self) -> None:
        self.asked.append("forget")
        self.state.clear()

    def reach(self, step: int) -> None:
        self.reached = step

    def publish(self) -> None:
        self.asked.append("publish")


class Average:
    def __init__(self) -> None:
        self.values, self.restarted, self.engines = torch.zeros(12), False, ("net",)

    def parts(self, network: str) -> list[Part]:
        return [part("ema/w", self.values, SHAPE)]

    def restart(self) -> None:
        self.restarted = True


class Adaptive:
    """An objective with state."""

    kept: Any = None

    def state(self) -> Any:
        return self.kept

    def load_state(self, state: Any) -> None:
        self.kept = state


class Alone(World):
    """One rank of several, which does not wait for the others; `said` is what they have gathered beside it."""

    said: tuple[Any, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.said]

    def share(self, value: Any) -> Any:
        return value

    def lead(self, act: Callable[..., Any], *arguments: Any) -> Any:
        return act(*arguments)


@dataclass
class Run:
    """A store in `folder`, with a clock, and what is restored from it."""

    folder: Path
    time: float = 100.0
    warned: list[JobError] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"file://{self.folder}/store"

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(open_store(self.uri), keep=Keep(), now=lambda: self.time)

    def save(self, step: int, engines: list[Engine], **metadata: Any) -> Commit:
        """A commit of what the engines, one for a rank, hold."""
        checkpoints, digests = self.checkpoints, []
        attempt = checkpoints.begin()
        prefix = checkpoints.prefix(step, attempt)
        for rank, engine in enumerate(engines):
            parts = {one.slice.key: one.tensor for one in engine.parts(own=True)}
            found = layout(one.slice for one in engine.parts(own=True))
            made = self.folder / f"made-{step}-{rank}"
            made.mkdir()
            data = b"".join(parts[slice.key].reshape(-1).numpy().tobytes() for slice in found.slices)
            (made / "net.safetensors").write_bytes(found.header + data)
            (made / "index.json").write_bytes(encode_index({"net.safetensors": found}))
            files = {name: made / name for name in ("net.safetensors", "index.json")}
            digests.append(checkpoints.put_shard(prefix, rank, files))
        contents = {"parameters": {"net": 1}, "optimizers": {"net": engines[0].settings.name}, "ema": False, **metadata}
        return checkpoints.commit(prefix, attempt=attempt, step=step, samples=8 * step, digests=digests, metadata=contents, metrics={})

    def damage(self, commit: Commit, name: str, rank: int = 0) -> None:
        path = self.folder / "store" / commit.prefix / f"rank-{rank}" / name
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(data)

    def restore(self, engine: Engine, source: str = "latest", since: float = 0.0, *, rank: int = 0, size: int = 1, **options: Any) -> Any:
        """The commit, and the state."""
        said, before = options.pop("said", ()), options.pop("before", None)
        identity, reset = options.pop("identity", {}), options.pop("reset", False)
        world = Alone(rank, size, torch.device("cpu"))
        object.__setattr__(world, "said", said)
        keeps = {"objective": options.pop("objective")} if "objective" in options else {}
        trained: Any = Trained({"net": engine}, State(), options.pop("ema", None), keeps)  # type: ignore[dict-item]
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        try:
            found = Restorer(self.checkpoints, trained, world, identity, scratch, reset).restore(
                source, since, self.warned.append, before=before
            )
        finally:
            assert list(scratch.iterdir()) == []
        return found, trained.state


def engine(value: float, start: int = 0, end: int = 12, **options: Any) -> Engine:
    """Weights `value` + the number of the element; a moment and a count of steps."""
    made = Engine(start, end, **options)
    made.weight += value + torch.arange(float(start), float(end))
    made.buffer += value
    made.state = {"exp_avg": -made.weight, "step": torch.tensor(value)}
    return made
