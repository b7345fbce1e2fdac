"""The parts of a trained pipeline of diffusers, from safetensors alone: its denoiser, its autoencoder, its text encoders and tokenizers.

Three kinds: Stable Diffusion (Rombach et al., 2022, arXiv 2112.10752), Stable Diffusion XL (Podell et al., 2023, arXiv 2307.01952) and
Stable Diffusion 3 (Esser et al., 2024, arXiv 2403.03206), the last with its T5 or without, as it lies there. A class that a folder
names and diffusers or transformers does not have is never looked for among code that lies beside the weights.

diffusers and transformers are imported inside the functions: they take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainjobs.data.pipelines import ENCODERS, INDEX, TENSORS, TOKENIZERS
from trainjobs.data.pretrained import unusable
from trainjobs.models.loading import ALONE

if TYPE_CHECKING:
    from trainjobs.data.pretrained import Pretrained

CLIP, PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
OPTIONAL = "text_encoder_3"  # which a pipeline that has it may be saved without
KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "StableDiffusionPipeline": {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",), "text_encoder": (CLIP,)},
    "StableDiffusionXLPipeline": {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": (CLIP,),
        "text_encoder_2": (PROJECTED,),
    },
    "StableDiffusion3Pipeline": {
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": (PROJECTED,),
        "text_encoder_2": (PROJECTED,),
        OPTIONAL: (T5,),
    },
}


@dataclass(frozen=True)
class Parts:
    """`name` is the denoiser's folder, unet or transformer; `encoders` and `tokenizers` go together; `scheduler` is its configuration."""

    kind: str
    name: str
    denoiser: nn.Module
    vae: nn.Module
    encoders: tuple[nn.Module, ...]
    tokenizers: tuple[Any, ...]
    scheduler: Mapping[str, Any]
    index: Mapping[str, Any]


def kind_of(base: Pretrained) -> str:
    """The pipeline's class. JobError GTJ0109 for one that is not known here."""
    index, where = base.json(INDEX), f"{base.uri}/{INDEX}"
    kind = str(index.get("_class_name"))
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise unusable("the pipeline is of another class", where, f"it is a {kind}", f"take one of {known}")
    for part, classes in KINDS[kind].items():
        found = class_in(index, part)
        if found not in classes and not (part == OPTIONAL and found is None):
            why = f"its {part} is {found or 'missing'}, and that of a {kind} is a {classes[0]}"
            raise unusable("the pipeline is of another class", where, why, "save it again with diffusers: pipeline.save_pretrained(folder)")
    return kind


def class_in(index: Mapping[str, Any], part: str) -> str | None:
    """The class of a part, as the pipeline's index has it; None where it is saved without."""
    found: str | None = (index.get(part) or [None, None])[1]
    return found


def load(base: Pretrained, *, half: bool) -> Parts:
    """All parts, in eval mode, none asking for a gradient. `half`: denoiser and text encoders in bfloat16, for what is not trained; the
    autoencoder is always in fp32, in which alone that of XL does not overflow.

    JobError GTJ0109 when a part cannot be used.
    """
    kind = kind_of(base)
    dtype = torch.bfloat16 if half else torch.float32
    parts = KINDS[kind]
    name = next(iter(parts))
    index = base.json(INDEX)
    encoders = [part for part in ENCODERS if part in parts and class_in(index, part) is not None]
    return Parts(
        kind,
        name,
        part_of(base, name, parts[name][0], dtype),
        part_of(base, "vae", parts["vae"][0], torch.float32),
        tuple(part_of(base, part, parts[part][0], dtype) for part in encoders),
        tuple(tokenizer_of(base, part) for part in TOKENIZERS[: len(encoders)]),
        base.json("scheduler/scheduler_config.json"),
        index,
    )


def part_of(base: Pretrained, part: str, named: str, dtype: torch.dtype) -> nn.Module:
    """One network of the pipeline. JobError GTJ0109."""
    import diffusers
    import transformers
    from safetensors import SafetensorError

    theirs = part in ENCODERS
    if theirs:
        transformers.utils.logging.disable_progress_bar()
    kind: Any = getattr(transformers if theirs else diffusers, named)
    files = [name for name in base.files if name.startswith(f"{part}/") and name.endswith(TENSORS)]
    variant = "fp16" if files and all(".fp16" in name for name in files) else None
    try:
        with ALONE:
            model, told = kind.from_pretrained(
                str(base.folder / part),
                **{"dtype" if theirs else "torch_dtype": dtype},
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        how = "save the pipeline again with diffusers"
        raise unusable(f"the pipeline's {part} cannot be loaded", base.uri, f"{type(error).__name__}: {error}", how) from error
    if missing := sorted(told["missing_keys"]):
        why = f"{', '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''} of {named} are not there"
        raise unusable(f"the pipeline's {part} has not all weights", base.uri, why, "copy all files of the pipeline")
    loaded: nn.Module = model.requires_grad_(False).eval()
    return loaded


def tokenizer_of(base: Pretrained, part: str) -> Any:
    """JobError GTJ0109."""
    from transformers import CLIPTokenizer, T5TokenizerFast

    kind: Any = T5TokenizerFast if part == TOKENIZERS[ENCODERS.index(OPTIONAL)] else CLIPTokenizer
    try:
        return kind.from_pretrained(str(base.folder / part), local_files_only=True)
    except Exception as error:  # whatever is in these files
        how = "copy all files of the pipeline"
        raise unusable(f"the pipeline's {part} cannot be read", base.uri, f"{type(error).__name__}: {error}", how) from error
