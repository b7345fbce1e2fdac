"""`training.compile`: the repeated blocks of a network are compiled by torch (regional compilation, as torchtitan and diffusers do it).

A network's layers are mostly one class with one forward, so what is compiled for the first is used for all of them: seconds where the whole
network takes minutes. Blocks are changed in place and keep their parameters' names, so checkpoints and exports are those of the network
uncompiled. What is computed without gradients (evaluations, samples) is computed as if nothing were compiled.

What is compiled is a function of the manifest and the shapes alone, so a run that goes on computes what it would have computed: shapes are
fixed (`dynamic=False`), and nothing is chosen by how long it takes (`deterministic`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.models.recomputing import Again
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.phase import Objective

WHERE = "spec.training.compile"
BACKEND = "inductor"
# Nothing is chosen by measuring, which a run that goes on would measure anew; and layers that draw dropout keep their order.
OPTIONS: dict[str, Any] = {"deterministic": True, "reorder_for_peak_memory": False}


def compile_blocks(networks: Mapping[str, nn.Module], spec: Spec, objective: Objective, device: torch.device) -> None:
    """Have the blocks of the trained `networks` compiled at their first forward pass, where the manifest says so.

    JobError GTJ0108 where none has any, where the rows of batches differ in length, and GTJ0135 where nothing can be compiled there.
    """
    if not spec.training.compile:
        return
    if varied(spec, objective):
        why = "every length is a shape of its own, and each shape is compiled anew"
        how = "take compile out, or learn from plain text as one stream"
        raise JobError("GTJ0108", "compile with rows of many lengths", where=WHERE, why=why, how=how)
    found = {name: list(blocks(network)) for name, network in networks.items()}
    if not any(found.values()):
        why = f"no layers of {', '.join(networks)} stand in a ModuleList, of which each could be compiled"
        raise JobError("GTJ0108", "compile of a network without blocks", where=WHERE, why=why, how="take compile out")
    why_not = failing(device.type)
    if why_not:
        needed = "gcc, which Triton asks for," if device.type == "cuda" else "g++"
        how = f"install {needed} where the workers run, or take compile out"
        raise JobError("GTJ0135", f"nothing can be compiled for {device.type}", where=WHERE, why=why_not, how=how)
    for own in found.values():
        compiled(own, BACKEND)


def varied(spec: Spec, objective: Objective) -> bool:
    """Whether micro-batches of one run have rows of different lengths."""
    return spec.language is not None and not (isinstance(objective, LanguageObjective) or getattr(objective, "stream", False))


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """What repeats: the members of every outermost ModuleList that hold layers themselves, in order; of a network of diffusers, what its
    class names as that."""
    named = {name for module in network.modules() for name in getattr(module, "_repeated_blocks", None) or ()}
    if named:
        yield from (module for module in network.modules() if type(module).__name__ in named)
    elif isinstance(network, nn.ModuleList):
        yield from (member for member in network if next(member.children(), None) is not None)
    else:
        for child in network.children():
            yield from blocks(child)


def compiled(found: list[nn.Module], backend: str) -> None:
    """Have these blocks be compiled, those of a class by one function."""
    # Each shape, and each way in which gradients flow, is a program of its own; beyond the limit torch would go on uncompiled.
    import torch._dynamo.config as limits  # seconds, which no other run has to pay

    limits.recompile_limit = max(limits.recompile_limit, 4 * len(found))
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 8 * len(found))
    options, kinds = OPTIONS if backend == "inductor" else None, {type(each) for each in found}
    programs = {kind: torch.compile(kind.forward, backend=backend, dynamic=False, options=options) for kind in kinds}
    for block in found:
        forward: Any = vars(block).get("forward")
        ours = _Compiled(block, programs[type(block)])
        block.forward = Again(ours) if isinstance(forward, Again) else ours


@dataclass(frozen=True)
class _Compiled:
    """A block's forward. The program is of the class, so a copy of the block computes with its own weights."""

    block: nn.Module
    program: Callable[..., Any]

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return type(self.block).forward(self.block, *arguments, **named)
        return self.program(self.block, *arguments, **named)


@cache
def failing(device: str) -> str:
    """Why nothing can be compiled for such devices here, in a line; "" where a small program computes what it should."""
    given = torch.linspace(-1.0, 1.0, 64, device=device)
    try:
        if device == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # what was compiled before is found in a folder, also where there is no compiler any more
        made = torch.compile(_tried, backend=BACKEND, dynamic=False)(given)
    except Exception as error:  # of a compiler, of a driver, of a folder that cannot be written: whatever it is, it cannot be used
        words = " ".join(str(error).split())
        return f"{type(error).__name__}: {words[:300] or 'no reason given'}"
    return "" if torch.allclose(made, _tried(given), atol=1e-5) else "a small program computes something else than torch"


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * x.exp()
