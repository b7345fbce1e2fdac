"""Whether a checkpoint fits a model, and which of its elements go where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Commit
from trainjobs.checkpoints.tensors import SUFFIX, Overlap, Slice, overlap
from trainjobs.engine.parts import Part

OURS = ("fp32", "buffer", "ema")  # kinds of tensors that are not the optimizer's
ANEW = "restore the manifest, or start afresh with gtj run --fresh"
Indexes = dict[int, dict[str, list[Slice]]]  # by rank and file


@dataclass(frozen=True)
class Move:
    """Elements of a file for a part of this rank's."""

    rank: int
    file: str
    slice: Slice
    part: Part
    overlap: Overlap


def match(wanted: Mapping[str, list[Part]], indexes: Indexes, own: int) -> tuple[list[Move], list[tuple[str, Part]]]:
    """Where the elements of the wanted parts are, and the parts, with their network, of which some are nowhere. Of several ranks that have
    the same elements the own one is taken, else the first."""
    moves, missing = [], []
    order = [own, *(rank for rank in sorted(indexes) if rank != own)]
    for name, parts in wanted.items():
        file = f"{name}{SUFFIX}"
        there: dict[str, list[tuple[int, Slice]]] = {}
        for rank in order:
            for slice in indexes[rank].get(file, ()):
                there.setdefault(slice.key, []).append((rank, slice))
        for part in parts:
            covered: list[tuple[int, int]] = []
            for rank, slice in there.get(part.slice.key, ()):
                shared = overlap(slice, part.slice) if slice.shape == part.slice.shape else None
                if shared and (shared.target, shared.length) not in covered:
                    covered.append((shared.target, shared.length))
                    moves.append(Move(rank, file, slice, part, shared))
                if sum(length for _, length in covered) >= part.slice.length:
                    break
            if sum(length for _, length in covered) < part.slice.length:
                missing.append((name, part))
    return moves, missing


def begins_anew(commit: Commit, contents: Mapping[str, Any], identity: Mapping[str, Any], reset: bool) -> bool:
    """Whether the optimizer's state does not fit and is to begin anew. Raises GTJ0208 for what cannot be continued."""
    theirs = commit.metadata
    what, where = f"checkpoint at step {commit.step} is of another model", commit.prefix
    if "parameters" not in theirs:
        raise JobError("GTJ0208", what, where=where, why="it was written by a version whose files this one does not read", how=ANEW)
    if theirs["parameters"] != contents["parameters"]:
        why = f"it has {_counted(theirs['parameters'])}, the manifest's model has {_counted(contents['parameters'])}"
        raise JobError("GTJ0208", what, where=where, why=why, how=ANEW)
    hidden = theirs.get("hidden") if "hidden" in theirs else identity.get("hidden")  # commits of before had none
    if theirs.get("frozen") != identity.get("frozen") or hidden != identity.get("hidden"):
        why = "the weights that are not trained, which a checkpoint leaves out, are not those it was trained with"
        raise JobError("GTJ0208", what, where=where, why=why, how="give the model the frozen weights it had")
    differing = [f"{name}: {theirs['optimizers'].get(name)} there, {ours} here" for name, ours in contents["optimizers"].items()
                 if theirs["optimizers"].get(name) != ours]  # fmt: skip
    without = sorted({*contents.get("averaged", ())} - {*theirs.get("averaged", theirs["parameters"])})  # commits of before averaged all
    if contents["ema"] and not theirs["ema"]:
        differing.append("no moving average there")
    elif contents["ema"] and without:
        differing.append(f"no moving average of {', '.join(without)} there")
    if differing and not reset:
        what = f"checkpoint at step {commit.step} has not the optimizer state that the manifest needs"
        how = "checkpoints.allowOptimizerReset: true takes the weights alone, and begins optimizer and moving average anew"
        raise JobError("GTJ0208", what, where=where, why="; ".join(differing), how=how)
    return bool(differing)


def mismatch(commit: Commit, missing: list[tuple[str, Part]], indexes: Indexes) -> JobError:
    """GTJ0208, with the tensors that differ."""
    words = []
    for name, part in missing:
        found = [slice for files in indexes.values() for slice in files.get(f"{name}{SUFFIX}", ()) if slice.key == part.slice.key]
        kind, _, parameter = part.slice.key.partition("/")
        called = f"{name}.{parameter}" if kind == "fp32" else f"{name}.{parameter} ({kind})"
        shape = list(part.slice.shape)
        words.append(f"{called} is {list(found[0].shape)} there and {shape} here" if found else f"{called} {shape} is not there")
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    what = f"checkpoint at step {commit.step} is of another model"
    return JobError("GTJ0208", what, where=commit.prefix, why="; ".join(words[:3]) + more, how=ANEW)


def resettable(key: str) -> bool:
    """Whether a tensor belongs to what begins anew with the optimizer: all but weights and buffers."""
    return key.partition("/")[0] not in ("fp32", "buffer")


def _counted(parameters: Mapping[str, int]) -> str:
    return ", ".join(f"{name} of {count} tensors" for name, count in sorted(parameters.items()))
