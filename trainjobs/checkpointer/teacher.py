"""The teacher of a distillation: a network of the job's own family, of any size, from a folder that `gtj checkpoints export` wrote.

It is built from what the folder says of itself (gentrain.json). It is frozen and in no checkpoint; a digest of its weights is in every
commit, and a run goes on only with the same.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import NETWORKS, Spec
from trainjobs.checkpointer.initial import described, fetch, get
from trainjobs.checkpointer.restorer import opened
from trainjobs.checkpointer.taught import with_language_teacher
from trainjobs.checkpoints import open_store
from trainjobs.data.pretrained import differing as named
from trainjobs.export.companion import FIELD
from trainjobs.export.export import FACTS
from trainjobs.objectives.build import FAMILIES
from trainjobs.objectives.distillation import TEACHER
from trainjobs.objectives.language.distilling import DistillObjective
from trainjobs.objectives.phase import Model, Network
from trainjobs.stores.store import Digest, Missing, check_key
from trainjobs.world import World, outcome

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo

WHERE = "spec.training.distillation.teacher"
# Of the family, what pupil and teacher must have in common: what the outputs mean.
SAME = {"diffusion": (("process",),), "language": (("tokenizer",),)}


def with_teacher(model: Model, spec: Spec, info: DataInfo, world: World, scratch: Path) -> Model:
    """The model, and the manifest's teacher beside it, where there is one. Every rank must call it; all raise the same.

    JobError GTJ0118 when there is no such folder, GTJ0208 when it is no teacher of this pupil, GTJ0209 when a file is damaged.
    """
    if isinstance(model.objective, DistillObjective):
        if model.objective.settings.top_k is not None:
            return model  # it was asked before (taught_ahead.py)
        return with_language_teacher(model, spec, info, world, scratch)
    if spec.training.distillation is None:
        return model
    found = outcome(_load, spec.training.distillation.teacher.rstrip("/"), spec, info, scratch)
    for error in world.gather(found if isinstance(found, Exception) else None):
        if error is not None:
            raise error
    return replace(model, networks={**model.networks, TEACHER: Network(found, {}, averaged=False)})


def _load(uri: str, spec: Spec, info: DataInfo, scratch: Path) -> nn.Module:
    name = NETWORKS[spec.family][0]
    with tempfile.TemporaryDirectory(dir=scratch, prefix="teacher-") as folder:
        theirs = _facts(uri, spec.family)
        told = Spec.model_validate(
            {
                **spec.model_dump(mode="json", by_alias=True, exclude_none=True),
                spec.family: theirs,
                "training": {"steps": 1},
            }
        )
        for path in SAME[spec.family]:
            ours, other = (_at(getattr(each, spec.family).model_dump(by_alias=True), path) for each in (spec, told))
            differing = [f"{key} {other.get(key)} there, {value} here" for key, value in ours.items() if other.get(key) != value]
            if differing:
                field = f"spec.{spec.family}.{'.'.join(path)}"
                why, how = f"of {field}: {'; '.join(differing)}", "give the pupil the teacher's, so that their outputs mean the same"
                raise JobError("GTJ0208", "the teacher learned another thing than the pupil is to", where=uri, why=why, how=how)
        if spec.diffusion is not None:
            _see_the_same_latents(uri, info.encoder)
        with torch.random.fork_rng(devices=[]):  # the pupil's weights and noise are those of a run without a teacher
            network = FAMILIES[spec.family](told, info).modules[name]
        state: dict[str, torch.Tensor] = {}
        for file in fetch(uri, [name], Path(folder)):
            shapes = {slice.key: slice.shape for slice in described(file)}
            state |= {key: value.view(shapes[key]).clone() for key, value in opened(file).items()}
    missing, strange = network.load_state_dict(state, strict=False)
    kept = {id(parameter) for parameter in network.parameters()}
    tied = {path for path, parameter in network.named_parameters(remove_duplicate=False) if id(parameter) in kept and path in missing}
    lacking = [path for path in missing if path not in tied or path in dict(network.named_parameters())]
    if lacking or strange:
        why = f"its weights lack {', '.join(lacking[:3]) or 'nothing'}, and have {', '.join(strange[:3]) or 'nothing'} too many"
        raise JobError("GTJ0208", "the teacher's weights are not those of its network", where=uri, why=why, how="export it again")
    return network


def _see_the_same_latents(uri: str, ours: Mapping[str, str] | None) -> None:
    """JobError GTJ0208 unless pupil and teacher have latents of one autoencoder, by the digests of its files, or none of them has any: the
    same numbers would mean other pictures."""
    theirs = _encoder(uri)
    if ours == theirs:
        return
    if ours is None or theirs is None:
        why = "it learned latents, and the pupil learns pictures" if ours is None else "it learned pictures, and the pupil learns latents"
    else:
        why = f"{named(ours, theirs)} between the teacher's autoencoder and the pupil's"
    how = f"name the teacher's: {FIELD}: {uri}" if theirs else "name a teacher that learned latents of the pupil's autoencoder"
    raise JobError("GTJ0208", "the teacher learned latents of another autoencoder", where=uri, why=why, how=how)


def _encoder(uri: str) -> dict[str, str] | None:
    """The digests of the files of the autoencoder that was exported beside the teacher, by their names in its folder; None without one."""
    store, found = open_store(uri), dict[str, str]()
    for name in map(str, _told(uri).get("autoencoder") or ()):
        digest = Digest()
        try:
            digest.update(get(store, check_key(name)))
        except (Missing, ValueError) as error:
            raise JobError("GTJ0209", "the teacher is damaged", where=f"{uri}/{name}", why=str(error), how="export it again") from error
        found[name.partition("/")[2]] = str(digest)
    return found or None


def _told(uri: str) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads(get(open_store(uri), FACTS))
    return told


def _facts(uri: str, family: str) -> Mapping[str, Any]:
    """The family's part of the teacher's manifest."""
    try:
        told = _told(uri)
        found = told["spec"].get(family)
    except Missing as error:
        how = "name a folder that gtj checkpoints export wrote in training.distillation.teacher"
        raise JobError("GTJ0118", "there is no teacher", where=uri, why=f"{FACTS} {error.why}", how=how) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError("GTJ0209", "the teacher is damaged", where=f"{uri}/{FACTS}", why=repr(error), how="export it again") from error
    if found is None:
        why, how = f"it is of family {told.get('family')}", f"a teacher of this job is of family {family}"
        raise JobError("GTJ0208", "the teacher is of another family", where=uri, why=why, how=how)
    result: Mapping[str, Any] = found
    return result


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for key in path:
        values = values[key]
    return values
