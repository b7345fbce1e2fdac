"""What samples are drawn from: a folder as `gtj checkpoints export` writes it, put together again as a model.

A checkpoint is exported first, so there is one way. What the data had to say of the model (its shape, the names of its classes, what the
samples of an evaluation are drawn for) is in the commit and in the export; those of before have none of it, and no conditions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainjobs.api.alignment import HEADS
from trainjobs.api.diffusion import Sampler, guidance_is_learned, timesteps_suffice
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.checkpoints.tensors import SUFFIX, read_layout
from trainjobs.data.chat_template import FILE
from trainjobs.data.job_template import ending
from trainjobs.data.job_template import tokenizer_of as tokenizer_of_base
from trainjobs.data.pretrained import fetched, pinned
from trainjobs.data.source import DataInfo
from trainjobs.data.tokens import TRAINED, ByteTokenizer, Tokenizer, read_tokenizer
from trainjobs.engine.parts import DTYPES
from trainjobs.evaluate.prompts import role
from trainjobs.export.autoencoders import FOLDER as AUTOENCODER
from trainjobs.export.export import FACTS
from trainjobs.noise import mix
from trainjobs.objectives.build import build
from trainjobs.objectives.language.headed import Headed
from trainjobs.objectives.phase import At, Model
from trainjobs.sampling import pipelines

MICRO = 64  # rows at a time where it is not known how many passed together


@dataclass(frozen=True)
class Opened:
    """`facts` is gentrain.json; `drawing` what it says of sampling."""

    spec: Spec
    info: DataInfo
    model: Model
    facts: Mapping[str, Any]
    drawing: Mapping[str, Any]

    @property
    def prompts(self) -> list[str]:
        """What an evaluation's samples are drawn for, one after the other and from the front again."""
        return [str(prompt) for prompt in self.drawing.get("for", ())]

    @property
    def micro(self) -> int:
        return int(self.drawing.get("micro") or MICRO)

    @property
    def chats(self) -> bool:
        """Whether a prompt is what a user says: it was trained on conversations."""
        return chats(self.spec, self.drawing)

    @property
    def at(self) -> At:
        """Where in its training the model is."""
        return At(int(self.facts["step"]), int(self.facts["samples"]), self.spec.training.steps)

    def autocast(self, device: torch.device) -> torch.autocast:
        """As the run's own evaluations computed."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.spec.training.precision == "bf16")


def opened(
    folder: Path,
    where: str,
    job: Mapping[str, Any] | None,
    device: torch.device,
    *,
    guidance: float | None = None,
    steps: int | None = None,
    scratch: Path | None = None,
) -> Opened:
    """The model of an export, on the device, in eval mode. `job` is the manifest's spec, where there is one; `guidance` and `steps` stand
    for those of its sampler; in `scratch` a base may be kept that lies elsewhere. JobError GTJ0118 for a folder
    that is none, GTJ0208 for weights that are not the model's, GTJ0108 for a model that cannot be built without its manifest."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        drawing = facts.get("drawing") or {}
        spec = spec_of(facts, drawing, job)
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        how = "name a run, a checkpoint or a folder of gtj checkpoints export"
        raise JobError("GTJ0118", "nothing to draw samples from", where=where, why=f"{FACTS}: {error}"[:300], how=how) from error
    if spec.custom and job is None:
        why = "only the manifest says with which options its objective is built"
        how = "name the run's folder instead"
        raise JobError("GTJ0108", "a custom model cannot be built from its weights alone", where=where, why=why, how=how)
    spec = on_base(sampled(spec, guidance, steps), facts, folder)
    if spec.language is not None and spec.language.adapter is not None and spec.language.adapter.type == "pTuning":
        why, how = "its export has what comes out of the small network, without that", "load the export with peft"
        raise JobError("GTJ0108", "gtj cannot draw of a model with pTuning", where=where, why=why, how=how)
    info = info_of(spec, drawing, folder, scratch)
    if facts.get("autoencoder"):
        from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

        info = replace(info, decode=FrozenAutoencoder.of(folder / AUTOENCODER, where).decode)
    torch.manual_seed(mix(spec.training.seed, "weights"))
    trained = facts["networks"]
    if spec.diffusion and spec.diffusion.pretrained:
        made, tensors = pipelines.opened(spec, info, facts, folder, where, read)
        trained = {"denoiser": ()} if tensors else {}
    else:
        made, tensors = build(spec, info), {}
    for name, network in made.networks.items():
        if spec.language is not None and spec.language.adapter is not None and spec.language.adapter.type != "bottleneck":
            adapted: Any = network.module.causal if isinstance(network.module, Headed) else network.module
            adapt(adapted, read(folder, trained[name], where), where)
        elif name in trained:
            fill(name, network.module, tensors or read(folder, trained[name], where), where)
        network.module.to(device).eval()
    return Opened(spec, info, made, facts, drawing)


def spec_of(facts: Mapping[str, Any], drawing: Mapping[str, Any], job: Mapping[str, Any] | None) -> Spec:
    """The manifest's, or as much of one as the weights know: the model, and how it was trained where samples depend on it."""
    if job is not None:
        return Spec.model_validate(job)
    family = dict(facts["spec"])
    images = family.pop("images", {})
    training = {"steps": 1, "batch": {"global": 1}, "seed": drawing.get("seed", 0), "precision": drawing.get("precision", "fp32")}
    return Spec.model_validate({**family, "data": {"source": "file:///nowhere", "images": images}, "training": training})


def sampled(spec: Spec, guidance: float | None, steps: int | None) -> Spec:
    """With another sampler. JobError GTJ0108 where there is none, or it cannot be."""
    asked = {name: value for name, value in (("guidance", guidance), ("steps", steps)) if value is not None}
    if not asked:
        return spec
    option = f"--{next(iter(asked))}"
    if spec.diffusion is None:
        how = f"take {option} out"
        raise JobError("GTJ0108", f"a {spec.family} model has no sampler", where=option, why="it draws in one way alone", how=how)
    try:
        sampler = Sampler.model_validate({**spec.diffusion.sampler.model_dump(by_alias=True), **asked})
    except ValidationError as error:
        raise JobError(
            "GTJ0108", f"{option} cannot be that", where=option, why=error.errors()[0]["msg"], how="see gtj sample --help"
        ) from error
    diffusion = spec.diffusion.model_copy(update={"sampler": sampler})
    for breach in (*guidance_is_learned(diffusion), *timesteps_suffice(diffusion)):
        raise breach.within("diffusion").problem("GTJ0108", ()).error()
    return spec.model_copy(update={"diffusion": diffusion})


def info_of(spec: Spec, drawing: Mapping[str, Any], folder: Path, scratch: Path | None = None) -> DataInfo:
    """What is known of the data."""
    tokenizer = tokenizer_of(spec, folder, scratch) if spec.language else None
    images = spec.data.images
    shape = tuple(drawing.get("shape") or (images.channels, images.size, images.size))
    kind: Literal["image", "point", "text"] = drawing.get("kind") or ("text" if spec.language else "point" if points(spec) else "image")
    if kind == "point":
        shape = (2,)
    modes = tuple((float(x), float(y)) for x, y in drawing.get("modes", ())) or None
    classes = tuple(drawing.get("classes", ()))
    form = "chat" if chats(spec, drawing) else ""
    return DataInfo(kind, shape, 1, 0, tokenizer.vocabulary if tokenizer else None, tokenizer, modes, classes, form=form)


def chats(spec: Spec, drawing: Mapping[str, Any]) -> bool:
    """Whether a model was trained on conversations. Commits of before say so only where the job names a template."""
    return spec.language is not None and bool(spec.language.template is not None or drawing.get("chat"))


def on_base(spec: Spec, facts: Mapping[str, Any], folder: Path) -> Spec:
    """With the base where it is: of one that was trained whole, or merged with its adapter, the export is all there is to it."""
    language = spec.language
    if language is None or language.base is None or ((folder / "config.json").is_file() is False and language.adapter is None):
        return spec
    if language.adapter is not None and not (folder / "config.json").is_file():
        told = facts.get("base", {}).get("uri", language.base.source)
        source, _, revision = str(told).partition("@")
        base = language.base.model_copy(update={"source": source, "revision": revision or None})
        return spec.model_copy(update={"language": language.model_copy(update={"base": base})})
    base = language.base.model_copy(update={"source": f"file://{folder.absolute()}", "revision": None})
    return spec.model_copy(update={"language": language.model_copy(update={"base": base, "adapter": None, "unfreezing": None})})


def points(spec: Spec) -> bool:
    network = spec.gan.generator if spec.gan else spec.vae.network if spec.vae else None
    return network is not None and network.architecture == "mlp"


def tokenizer_of(spec: Spec, folder: Path, scratch: Path | None) -> Tokenizer:
    assert spec.language is not None
    if spec.language.base is not None:
        base, template = spec.language.base, folder / FILE
        text = template.read_text(encoding="utf-8") if template.is_file() else None
        return ending(tokenizer_of_base(spec.language, fetched(base, pinned(base, None), scratch or folder), text))
    if spec.language.tokenizer.type == "byte":
        return ByteTokenizer()
    told = json.loads((folder / TRAINED).read_text(encoding="utf-8"))
    return read_tokenizer(json.dumps({**told, "added_tokens": []}).encode())  # the end of a text is ours to count


def read(folder: Path, files: Sequence[str], where: str) -> dict[str, Tensor]:
    """JobError GTJ0209 for a file that is missing or damaged."""
    found: dict[str, Tensor] = {}
    for name in files:
        try:
            data = bytearray((folder / name).read_bytes())
            start = int.from_bytes(data[:8], "little") + 8
            layout = read_layout(bytes(data[:start]))
            if layout.size > len(data):
                raise ValueError(f"it has {len(data)} bytes, and describes {layout.size}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            how = "fetch or export them again"
            raise JobError("GTJ0209", f"{name} is damaged", where=where, why=str(error), how=how) from error
        for slice, offset in zip(layout.slices, layout.offsets, strict=True):
            flat = torch.frombuffer(data[offset : offset + slice.bytes], dtype=DTYPES[slice.dtype]) if slice.length else torch.empty(0)
            found[slice.key] = flat.view(slice.shape)
    return found


def fill(name: str, module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """JobError GTJ0208 where names or shapes are not the network's."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    tensors = {path: tensor for path, tensor in tensors.items() if path in own or path not in HEADS}  # text is drawn without them
    state = module.state_dict()
    differing = [path for path, tensor in tensors.items() if path not in own or own[path].shape != tensor.shape]
    missing = [path for path, parameter in module.named_parameters() if parameter.requires_grad and path not in (*tensors, *HEADS)]
    if differing or missing:
        why = f"{(differing + missing)[0]} differs" + (f", and {len(differing + missing) - 1} more" if len(differing + missing) > 1 else "")
        how = f"name the folder that {name}{SUFFIX} was written into, as it was written"
        raise JobError("GTJ0208", f"the weights are not those of {name}", where=where, why=why, how=how)
    with torch.no_grad():
        for path, tensor in tensors.items():
            (state[path] if path in state else own[path]).copy_(tensor)


def adapt(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a base's adapter its weights, as peft has them. JobError GTJ0208 where they are another's."""
    from peft import set_peft_model_state_dict

    try:
        told: Any = set_peft_model_state_dict(module, dict(tensors))
    except RuntimeError as error:
        told, why = None, str(error)
    else:
        why = ", ".join([name for name in told.unexpected_keys if name != "prompt_embeddings"][:3])  # those peft puts in itself
    if why:
        raise JobError(
            "GTJ0208", "the weights are not those of the adapter", where=where, why=why[:300], how="name the export as it was written"
        )


def wanted(found: Opened) -> str:
    """What its samples are drawn for: "label", "caption", "prompt", or "" where for nothing."""
    return "prompt" if found.spec.language else role(found.spec)
