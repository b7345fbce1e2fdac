"""Groups of parameters: which optimizer each has, and from which step on it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.training import Optimizer

Groups = Mapping[str, Sequence[nn.Parameter]] | None


@dataclass(frozen=True)
class Group:
    """Parameters of one network that one entry of training.optimizers is about, by their paths in the network."""

    name: str
    parameters: tuple[tuple[str, nn.Parameter], ...]
    settings: Optimizer
    thaws: int = 0  # the first step at which it trains
    renews: tuple[int, ...] = ()  # further steps at which its optimizer begins anew
    shrinks: float = 0.0  # lambda of the proximal step of |w|
    embeddings: frozenset[str] = frozenset()  # paths of those whose rows are looked up

    def begins(self, step: int) -> bool:
        """Whether its optimizer is new before this step, which is not the first."""
        return step > 0 and (step == self.thaws or (step in self.renews and self.trains(step)))

    def trains(self, step: int) -> bool:
        return step >= self.thaws


def grouped(
    network: str,
    module: nn.Module,
    groups: Groups,
    thaws: Mapping[str, int],
    settings: Callable[[str], Optimizer],
) -> list[Group]:
    """The groups of a network; [] when nothing of it trains. None stands for one group of all parameters that ask for a gradient.

    JobError GTJ0214 for groups that overlap, name parameters of another network, or have optimizers of several kinds: one network has
    one optimizer, whose groups differ in rates, decays and momenta.
    """
    # By parameters, not by `weight`: of a layer with spectral norm that computes another tensor, and iterates once more.
    looked_up = {id(own) for child in module.modules() if isinstance(child, nn.Embedding) for own in child.parameters()}
    paths = {id(parameter): path for path, parameter in module.named_parameters()}
    if groups is None:
        groups = {network: [parameter for parameter in module.parameters() if parameter.requires_grad]}
    found = []
    seen: dict[int, str] = {}
    for name, parameters in groups.items():
        if not parameters:
            continue
        for parameter in parameters:
            if id(parameter) not in paths:
                raise _wrong(f"group {name} of {network} has a parameter of shape {list(parameter.shape)} that is not the network's")
            if id(parameter) in seen:
                raise _wrong(f"{network}.{paths[id(parameter)]} is in the groups {seen[id(parameter)]} and {name}")
            seen[id(parameter)] = name
        members = tuple((paths[id(parameter)], parameter) for parameter in parameters)
        embeddings = frozenset(path for path, parameter in members if id(parameter) in looked_up)
        found.append(Group(name, members, settings(name), thaws.get(name, 0), embeddings=embeddings))
    if unknown := sorted(set(thaws) - set(groups)):
        raise _wrong(f"{network} thaws {', '.join(unknown)}, which is none of its groups")
    if len({group.settings.name for group in found}) > 1:
        kinds = ", ".join(f"{group.name}: {group.settings.name}" for group in found)
        raise _wrong(f"the groups of {network} have optimizers of several kinds ({kinds})")
    return found


def divided(
    networks: Mapping[str, tuple[nn.Module, Groups, Mapping[str, int]]], settings: Callable[[str], Optimizer]
) -> dict[str, list[Group]]:
    """The groups of every network, given as (module, groups, thaws); parameters that are in none ask for no gradient from here on."""
    found = {name: grouped(name, module, groups, thaws, settings) for name, (module, groups, thaws) in networks.items()}
    for name, (module, _, _) in networks.items():
        ours = {path for group in found[name] for path, _ in group.parameters}
        for path, parameter in module.named_parameters():
            parameter.requires_grad_(path in ours)
    return found


def _wrong(what: str) -> JobError:
    how = "give each parameter of the network to one group, and name the groups as in training.optimizers"
    return JobError("GTJ0214", what, where="Network.groups", how=how)
