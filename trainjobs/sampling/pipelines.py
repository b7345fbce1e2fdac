"""A pipeline that a run went on from, with what was trained of it: from the tensors of a checkpoint, or from an export for diffusers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.uris import file_uri
from trainjobs.data.pipelines import INDEX
from trainjobs.data.pretrained import fetched, pinned
from trainjobs.data.source import DataInfo
from trainjobs.export.pipelines import ENCODED, KOHYA, LORA, WORD, names_for_others
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Model

Read = Callable[[Path, Sequence[str], str], dict[str, Tensor]]


def opened(
    spec: Spec, info: DataInfo, facts: Mapping[str, Any], folder: Path, where: str, read: Read
) -> tuple[Model, Mapping[str, Tensor]]:
    """The model, and the tensors of its denoiser by their names; none where the folder is a whole pipeline.

    JobError GTJ0118 when the pipeline is not to be had, GTJ0208 when it is another one than it was, GTJ0109 when it cannot be used.
    """
    assert spec.diffusion is not None
    assert spec.diffusion.pretrained is not None
    whole = (folder / INDEX).is_file()
    if whole:
        there = spec.diffusion.pretrained.model_copy(update={"source": file_uri(str(folder.absolute())), "revision": None})
        spec = spec.model_copy(update={"diffusion": spec.diffusion.model_copy(update={"pretrained": there, "adapt": None})})
    assert spec.diffusion is not None
    base = spec.diffusion.pretrained
    assert base is not None
    with tempfile.TemporaryDirectory(prefix="gentrain-base-") as scratch:
        found = fetched(base, pinned(base, None) if whole else str(facts["base"]["uri"]), Path(scratch))
        if not whole and found.digest != facts["base"]["digest"]:
            why = f"the weights belong to {facts['base']['digest'][:19]}..., and {found.uri} is {found.digest[:19]}... now"
            how = "put the pipeline back as it was"
            raise JobError("GTJ0208", "the pipeline is another one than the weights'", where=where, why=why, how=how)
        made = build(spec, info, found)
    if whole:
        return made, {}
    files: list[str] = list(facts["networks"]["denoiser"])
    tensors = read(folder, files, where)
    if files == [KOHYA]:
        how = "name the run or its checkpoint, or export it in diffusers' keys"
        raise JobError("GTJ0108", "samples are not drawn from kohya's keys", where=where, how=how)
    trained = [name for name, parameter in made.modules["denoiser"].named_parameters() if parameter.requires_grad]
    if files == [LORA]:
        ours = names_for_others(trained)
        tensors = {ours.get(name, name): tensor for name, tensor in tensors.items()}
    elif files == [WORD]:
        tensors = dict(zip(sorted(trained), tensors.values(), strict=True)) if len(trained) == 1 else _of_several(trained, tensors)
    return made, tensors


def _of_several(trained: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[key] for name, key in zip(sorted(trained), ENCODED[: len(trained)], strict=True)}
