"""What samples are drawn for, as people write it: texts, and names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.data.captions import NOTHING, tokens
from trainjobs.data.source import DataInfo
from trainjobs.data.wanted import carried, longest

_SHOWN = 12  # classes in a message


def role(spec: Spec) -> str:
    """What samples are drawn for: "label", "caption", or "" where for nothing. An objective of the user's own gets texts."""
    if spec.custom or (spec.diffusion and spec.diffusion.pretrained):
        return "caption"
    return next(iter(carried(spec)), "")


def conditions_of(prompts: Sequence[str], spec: Spec, classes: Sequence[str], where: str) -> Mapping[str, Tensor]:
    """As in a batch of so many samples. JobError GTJ0102 for a class that there is not, GTJ0113 for a text that is too long."""
    if role(spec) == "label":
        return {"label": torch.tensor([number(prompt, classes, where) for prompt in prompts])}
    length = longest(spec)
    long = [prompt for prompt in prompts if len(prompt.encode()) > length]
    if long:
        why = f'"{long[0][:40]}" has {len(long[0].encode())}'
        raise JobError("GTJ0113", f"a prompt is longer than {length} bytes", where=where, why=why, how="shorten it")
    return {"caption": torch.from_numpy(tokens(prompts, length, prompts))}


def number(name: str, classes: Sequence[str], where: str) -> int:
    """Of a class, by its name, or by its number where no class has that for a name."""
    if name in classes:
        return classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    why = f"classes: {listed(classes[:_SHOWN], 'and') if not more else ', '.join(classes[:_SHOWN]) + more}"
    how = did_you_mean(name, classes) or "name one of them, or its number"
    raise JobError("GTJ0102", f'there is no class "{name}"', where=where, why=why, how=how)


def prompted(spec: Spec, info: DataInfo, rows: Tensor) -> Mapping[str, Tensor] | None:
    """What samples number `rows` (int64 [B]) are drawn for by evaluation.prompts, one after the other and from the front again; None
    without any."""
    prompts = spec.evaluation.prompts
    if not prompts:
        return None
    every = conditions_of(prompts, spec, info.classes, "evaluation.prompts")
    return {name: value[rows % len(prompts)] for name, value in every.items()}


def words(conditions: Mapping[str, Tensor], classes: Sequence[str]) -> list[str]:
    """What each row is drawn for, as prompts write it; empty where for nothing."""
    if "caption" in conditions:
        return [bytes(token for token in row if token < NOTHING).decode(errors="replace") for row in conditions["caption"].tolist()]
    if "label" in conditions:
        return [classes[label] if label < len(classes) else str(label) for label in conditions["label"].tolist()]
    return []


def account(spec: Spec, info: DataInfo, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a commit keeps so that samples can be drawn from it without the data: JSON. `conditions` are those of the first samples of an
    evaluation."""
    told = {"kind": info.kind, "shape": list(info.shape), "vocabulary": info.vocabulary, "classes": list(info.classes)}
    modes = {"modes": [list(mode) for mode in info.modes]} if info.modes else {}
    return {**told, **modes, "seed": spec.training.seed, "precision": spec.training.precision, "for": words(conditions, info.classes)}
