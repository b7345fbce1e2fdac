"""What training.freeze and training.unfreeze make of a model's groups of parameters.

A frozen parameter is one whose group has not thawed: it is in the optimizer and in checkpoints from the start, with rate 0 and no gradient,
because ZeRO cuts the parameters into parts once and for all. One that nobody unfreezes thaws never (Howard and Ruder, "Universal language
model fine-tuning", 2018, section 3.3, for unfreezing layer by layer; Mo et al., "Freeze the discriminator", 2020, for GANs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.problem import listed
from trainjobs.api.training import Optimizer, Training
from trainjobs.models.normalization import ConditionalBatchNorm
from trainjobs.objectives.phase import Network

NEVER = 2**31
MARK = "@"  # between a group's name and when it thaws; no name in training.optimizers has one


def divided_by_thaw(networks: Mapping[str, Network], training: Training) -> dict[str, Network]:
    """The networks with their groups cut by the step at which they thaw. JobError GTJ0108 for a pattern that matches nothing, with the
    nearest names, and for a network of which nothing trains at the first step."""
    paths = {name: dict(network.module.named_parameters()) for name, network in networks.items() if network.groups != {}}
    known = [f"{name}.{path}" for name, found in paths.items() for path in found]
    frozen = set(_matching(training.freeze, known, "spec.training.freeze", "no parameter"))
    thaws = dict.fromkeys(frozen, NEVER)
    for number, stage in enumerate(training.unfreeze):
        for path in _matching(stage.patterns, known, f"spec.training.unfreeze[{number}].patterns", "no parameter", frozen):
            thaws[path] = min(thaws[path], stage.step)
    return {name: _cut(name, network, thaws) if name in paths and thaws else network for name, network in networks.items()}


def optimizer_of(spec: Spec, group: str) -> Optimizer:
    """The settings of a group, which may have been cut."""
    return spec.optimizer(group.partition(MARK)[0])


def _cut(name: str, network: Network, thaws: Mapping[str, int]) -> Network:
    names = {id(parameter): f"{name}.{path}" for path, parameter in network.module.named_parameters()}
    groups = network.groups
    if groups is None:
        groups = {name: [parameter for parameter in network.module.parameters() if parameter.requires_grad]}
    cut: dict[str, list[nn.Parameter]] = {}
    begins: dict[str, int] = {}
    for group, parameters in groups.items():
        for parameter in parameters:
            own = thaws.get(names[id(parameter)], 0)
            part = group if own == 0 else f"{group}{MARK}{'never' if own == NEVER else own}"
            cut.setdefault(part, []).append(parameter)
            begins[part] = max(own, network.thaws.get(group, 0))
    if cut and all(begins.values()):
        why = "training.freeze holds every parameter of it, so its first step would have no gradient"
        how = "leave some of it out of training.freeze"
        raise JobError("GTJ0108", f"nothing of the {name} trains at the first step", where="spec.training.freeze", why=why, how=how)
    return replace(network, groups=cut, thaws={part: step for part, step in begins.items() if step})


def _matching(patterns: Sequence[str], known: Sequence[str], where: str, what: str, among: set[str] | None = None) -> Iterator[str]:
    """The paths that a pattern matches: as a shell would, or all that lies below one that is named whole."""
    for pattern in patterns:
        found = [path for path in known if fnmatchcase(path, pattern) or path.startswith(f"{pattern}.")]
        if not found:
            tops = sorted({".".join(path.split(".")[:depth]) for path in known for depth in (1, 2, 3, 4, 5)})
            near = get_close_matches(pattern.rstrip("*."), tops, n=3, cutoff=0.3)
            how = (
                f"nearest names: {listed(near)}"
                if near
                else f"names begin with {listed(sorted({path.partition('.')[0] for path in known}))}"
            )
            raise JobError("GTJ0108", f"{pattern} matches {what}", where=where, why="names are <network>.<path in it>", how=how)
        if among is not None and not among.intersection(found):
            how = "freeze them first, or take the pattern out"
            raise JobError("GTJ0108", f"{pattern} matches nothing that training.freeze froze", where=where, how=how)
        yield from (path for path in found if among is None or path in among)


@dataclass
class StillNorms:
    """Batch norm whose parameters are frozen keeps its statistics, too: it computes with the running ones, as in eval mode, until it
    thaws."""

    thaws: Sequence[tuple[nn.Module, int]]

    @classmethod
    def of(cls, networks: Mapping[str, Network], training: Training) -> StillNorms:
        """Of networks that were divided."""
        found: list[tuple[nn.Module, int]] = []
        if training.freeze:
            for network in networks.values():
                steps = {id(p): network.thaws.get(name, 0) for name, own in (network.groups or {}).items() for p in own}
                for layer in network.module.modules():
                    conditional = isinstance(layer, ConditionalBatchNorm)
                    norm = layer.norm if isinstance(layer, ConditionalBatchNorm) else layer
                    own = [steps.get(id(parameter), 0) for parameter in layer.parameters(recurse=conditional)]
                    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and own and min(own) > 0:
                        found.append((norm, min(own)))
        return cls(found)

    def begin(self, step: int) -> None:
        """Before every step, whichever way the run came to it."""
        for layer, thaws in self.thaws:
            still = "train" in vars(layer)
            if step < thaws and not still:
                layer.eval()
                vars(layer)["train"] = _Unmoved(layer)
            elif step >= thaws and still:
                del vars(layer)["train"]
                layer.train()


@dataclass(frozen=True)
class _Unmoved:
    """Stands for a layer's `train`, which a network calls of all its layers: nothing happens."""

    layer: nn.Module

    def __call__(self, mode: bool = True) -> Any:
        return self.layer
