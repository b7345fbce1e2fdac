"""What is exported of a pipeline that a run went on from, as diffusers and others load it.

    pytorch_lora_weights.safetensors   low-rank changes in diffusers' keys, with peft's configuration: pipe.load_lora_weights(folder)
    <name of the folder>.safetensors   the same in kohya's keys, which ComfyUI and others read (--style kohya)
    learned_embeds.safetensors         a new word: pipe.load_textual_inversion(folder)
    a whole pipeline                   where all weights were trained, or changes are merged (--merge): from_pretrained(folder)

The tensors of the checkpoint are there already, in `denoiser.safetensors` under the names that training has for them. torch, diffusers and
transformers are imported inside the functions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainjobs.api.diffusion import Diffusion
from trainjobs.api.errors import JobError
from trainjobs.data.pipelines import ENCODERS, PLAIN, TENSORS, is_index
from trainjobs.data.pretrained import Pretrained, compare, fetched
from trainjobs.export.huggingface import DTYPES

LORA, WORD, KOHYA = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors", "lora.safetensors"
ENCODED = ("clip_l", "clip_g", "t5xxl")  # the text encoders, as others call them in files of words
_ADAPTER = ".default"  # peft's name of an adapter, within the names of its parameters


def allowed(diffusion: Diffusion | None, adapter: bool, merge: bool, style: str | None) -> None:
    """See that what is asked of an export can be done with this model. JobError GTJ0108."""
    kind = diffusion.adapted.type if diffusion is not None and diffusion.pretrained is not None else "full"
    if (adapter or merge) and kind != "lora":
        asked = "--merge" if merge else "--adapter"
        why = "a new word is no change of the pipeline's weights" if kind == "textual-inversion" else "the model was trained without one"
        raise JobError("GTJ0108", "there is no adapter", where=asked, why=why, how=f"leave {asked} out")
    if style == "kohya" and (kind != "lora" or merge):
        why = "kohya's keys are those of low-rank changes"
        raise JobError("GTJ0108", "there is nothing to write in kohya's keys", where="--style", why=why, how="leave --style out")


def finish(folder: Path, diffusion: Diffusion, account: Mapping[str, Any], dtype: str, *, merge: bool, style: str | None) -> list[str]:
    """Make of the tensors in `folder` what others load, and return the names of the files of weights.

    JobError GTJ0118 and others when the pipeline is not to be had, GTJ0208 when it is another one.
    """
    pipeline, adapt = diffusion.pretrained, diffusion.adapted
    assert pipeline is not None
    trained = taken(folder)
    if adapt.type != "full":  # a checkpoint has the pipeline's buffers, too
        trained = {name: tensor for name, tensor in trained.items() if ".lora_" in name or name.endswith(".rows")}
    if adapt.type == "textual-inversion":
        _word(folder, diffusion, trained)
    elif adapt.type == "lora" and not merge:
        (_kohya if style == "kohya" else _lora)(folder, diffusion, trained)
    else:
        with tempfile.TemporaryDirectory(prefix="gentrain-base-") as scratch:
            found = fetched(pipeline, str(account["uri"]), Path(scratch))
            if dict(account["files"]) != dict(found.files):
                compare(account, found)
            _whole(folder, diffusion, found, trained, dtype)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{TENSORS}"))


def taken(folder: Path) -> dict[str, Any]:
    """The tensors in `folder`, whose files are gone then."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("denoiser*.safetensors*")):
        if path.suffix == TENSORS:
            found |= load_file(path)
        path.unlink()
    return found


def by_part(trained: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tensors of unet or transformer, and of the text encoders, by the names that they have there, without that of the adapter."""
    found: dict[str, dict[str, Any]] = {}
    for name, tensor in trained.items():
        part, _, path = name.partition(".")
        found.setdefault(part, {})[path.replace(_ADAPTER, "")] = tensor
    return found


def _lora(folder: Path, diffusion: Diffusion, trained: Mapping[str, Any]) -> None:
    """In the keys that diffusers' own scripts write, and beside them what peft must know of them."""
    import json

    from safetensors.torch import save_file

    from trainjobs.models.pipeline_adapters import config

    tensors: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for part, own in by_part(trained).items():
        layers = sorted({path.rpartition(".lora_")[0] for path in own})
        for key, value in config(diffusion.adapted.lora, layers).to_dict().items():
            if value is not None:
                told[f"{part}.{key}"] = sorted(value) if isinstance(value, set) else value
        tensors |= {f"{part}.{_named(part, path)}": tensor.contiguous() for path, tensor in own.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(told, default=str, sort_keys=True)}
    save_file(tensors, folder / LORA, metadata=metadata)


def _kohya(folder: Path, diffusion: Diffusion, trained: Mapping[str, Any]) -> None:
    """lora_unet_<layer>.lora_down.weight, .lora_up.weight, .alpha; lora_te1_, lora_te2_ of text encoders, lora_te_ of one alone."""
    import torch
    from safetensors.torch import save_file

    lora, parts = diffusion.adapted.lora, by_part(trained)
    alpha = torch.tensor(float(lora.alpha if lora.alpha is not None else lora.rank))
    names = {"unet": "lora_unet", "transformer": "lora_transformer", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
    if "text_encoder_2" in parts:
        names["text_encoder"] = "lora_te1"
    tensors: dict[str, Any] = {}
    for part, own in parts.items():
        for path, tensor in own.items():
            layer, _, which = _named(part, path).rpartition(".lora_")
            key = f"{names[part]}_{layer.replace('.', '_')}"
            kind = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}.get(which, "dora_scale")
            tensors[f"{key}.{kind}"] = tensor.contiguous()
            tensors[f"{key}.alpha"] = alpha.clone()
    save_file(tensors, folder / KOHYA, metadata={"format": "pt"})


def _named(part: str, path: str) -> str:
    """The name that a tensor has for others: transformers no longer calls CLIP's inside text_model, those who read files do; peft's lengths
    of DoRA have no .weight."""
    path = path.removesuffix(".weight") if path.endswith("lora_magnitude_vector.weight") else path
    return f"text_model.{path}" if part in ENCODERS and not path.startswith("text_model.") else path


def names_for_others(names: Iterable[str]) -> dict[str, str]:
    """Of parameters that are trained, by their names in an export."""
    found = {}
    for name in names:
        part, _, path = name.partition(".")
        found[f"{part}.{_named(part, path.replace(_ADAPTER, ''))}"] = name
    return found


def _word(folder: Path, diffusion: Diffusion, trained: Mapping[str, Any]) -> None:
    """{placeholder: [vectors, width]}; of several text encoders one for each of ENCODED, as pipe.load_textual_inversion is given them."""
    from safetensors.torch import save_file

    word = diffusion.adapted.textual_inversion
    assert word is not None
    rows = [tensor.contiguous() for _, tensor in sorted(trained.items())]
    names = [word.placeholder] if len(rows) == 1 else ENCODED[: len(rows)]
    save_file(dict(zip(names, rows, strict=True)), folder / WORD, metadata={"format": "pt"})


def _whole(folder: Path, diffusion: Diffusion, found: Pretrained, trained: Mapping[str, Any], dtype: str) -> None:
    """The pipeline's own files, with what was trained in the place of what it was."""
    import torch

    from trainjobs.models.pipelines import KINDS, kind_of, part_of

    parts, kind = by_part(trained), KINDS[kind_of(found)]
    for name in found.files:
        part, _, file = name.rpartition("/")
        if part not in parts or not (file in PLAIN or file.endswith(TENSORS) or is_index(file)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.folder / name, folder / name)
    for part, own in parts.items():
        network: Any = part_of(found, part, kind[part][0], torch.float32)
        if diffusion.adapted.type == "lora":
            _merge(network, diffusion, own)
        elif missing := sorted({path for path, _ in network.named_parameters()} - own.keys()):
            raise JobError("GTJ0208", "the checkpoint is of another pipeline", where=found.uri, why=f"it has no {missing[0]}")
        else:
            network.load_state_dict(own, strict=False)
        network.to(getattr(torch, DTYPES[dtype])).save_pretrained(str(folder / part))


def _merge(network: Any, diffusion: Diffusion, own: Mapping[str, Any]) -> None:
    """Put the changes into the weights, and take their layers out again."""
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    from trainjobs.models.pipeline_adapters import config

    layers = sorted({path.rpartition(".lora_")[0] for path in own})
    inject_adapter_in_model(config(diffusion.adapted.lora, layers), network)
    state = {name.replace(_ADAPTER, ""): parameter for name, parameter in network.named_parameters() if "lora_" in name}
    for path, parameter in state.items():
        parameter.data = own[path].to(parameter)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            above, _, last = name.rpartition(".")
            setattr(network.get_submodule(above), last, layer.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config
    if hasattr(network, "_hf_peft_config_loaded"):
        network._hf_peft_config_loaded = False
