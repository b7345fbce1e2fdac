"""Which files of a folder make up a pipeline of diffusers: of each part its configuration and its safetensors, of tokenizers all they need.

Parts that only look at pictures (a safety checker, features of images) are left out: nothing here uses them.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainjobs.api.errors import JobError
from trainjobs.data.places.place import Object, Place

INDEX, TENSORS = "model_index.json", ".safetensors"
DENOISERS = ("unet", "transformer")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
WEIGHED = (*DENOISERS, "vae", *ENCODERS)
PLAIN = ("config.json", "scheduler_config.json")
WORDS = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "spiece.model"),
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".onnx")


def chosen(objects: Sequence[Object], place: Place, weights: bool) -> list[Object]:
    """The files of the pipeline, by name; without `weights` only those beside them. JobError GTJ0118 when there is none, GTJ0109 when a
    part's weights are pickled alone."""
    parts: dict[str, dict[str, Object]] = {}
    for one in objects:
        part, _, name = one.name.rpartition("/")
        parts.setdefault(part, {})[name] = one
    if INDEX not in parts.get("", {}):
        how = "name the folder that save_pretrained of a pipeline of diffusers wrote"
        raise JobError("GTJ0118", "there is no pipeline", where=place.uri, why=f"{INDEX} is missing", how=how)
    found = [parts[""][INDEX]]
    for part in sorted(parts):
        own = parts[part]
        if part in TOKENIZERS:
            found += [own[name] for name in sorted(own) if name in WORDS]
        elif part == "scheduler" or part in WEIGHED:
            found += [own[name] for name in PLAIN if name in own]
        if part in WEIGHED and weights:
            found += tensors(part, own, place)
    return found


def is_index(name: str) -> bool:
    """Whether a file says which of several safetensors a weight lies in: model.safetensors.index.json, ....index.fp16.json."""
    return f"{TENSORS}.index." in name


def tensors(part: str, own: dict[str, Object], place: Place) -> list[Object]:
    """The safetensors of a part: those without a variant (.fp16., .non_ema.) where there are such, else those in half precision. With them
    their index, where there are several."""
    every = [name for name in sorted(own) if name.endswith(TENSORS)]
    plain = [name for name in every if not any(f".{variant}" in name for variant in ("fp16", "non_ema", "bf16"))]
    taken = plain or [name for name in every if ".fp16" in name] or every
    if not taken:
        if pickled := sorted(name for name in own if name.endswith(PICKLED)):
            why = f"{part}/{pickled[0]} is not in the format safetensors, and loading others may run code"
            how = "convert it: pipeline.save_pretrained(folder) of diffusers writes them"
            raise JobError("GTJ0109", "the pipeline has no safetensors", where=place.uri, why=why, how=how)
        why, how = f"no .safetensors lie in {part}", "copy the pipeline as a whole"
        raise JobError("GTJ0118", "the pipeline has no weights", where=place.uri, why=why, how=how)
    variants = any(".fp16" in name for name in taken)
    indices = [name for name in sorted(own) if is_index(name) and (".fp16" in name) == variants and len(taken) > 1]
    return [own[name] for name in (*taken, *indices)]
