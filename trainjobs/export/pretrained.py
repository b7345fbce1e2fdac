"""What is exported of a language model that went on from a base: the model with its tokenizer, an adapter as peft reads it, or both merged.

The tensors of the checkpoint are there already, in `model.safetensors` under the names that training has for them. torch is imported inside
the functions, and only where an adapter is turned into something else.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainjobs.api.alignment import HEADS
from trainjobs.api.errors import JobError
from trainjobs.api.language import Language, Task
from trainjobs.api.pretrained import VIRTUAL, Adapter, Base
from trainjobs.data.chat_template import FILE
from trainjobs.data.pretrained import CONFIG, Pretrained, compare, fetched
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer, read
from trainjobs.export import scores, templates
from trainjobs.export.huggingface import DTYPES, text

TOKENS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    FILE,
    "preprocessor_config.json",
)
RAW, ADAPTER = "model.safetensors", "adapter_model.safetensors"


def allowed(language: Language | None, adapter: bool, merge: bool) -> None:
    """See that what is asked of an export can be done with this model. JobError GTJ0108."""
    found = language.adapter if language is not None else None
    if found is None:
        if adapter or merge:
            asked = "--merge" if merge else "--adapter"
            why, how = "the model was trained without one", f"leave {asked} out"
            raise JobError("GTJ0108", "there is no adapter", where=asked, why=why, how=how)
        return
    if merge and (found.type in VIRTUAL or found.type == "bottleneck"):
        why = f"{'what stands before the text' if found.type in VIRTUAL else 'a new layer'} is no change of the base's weights"
        how = "export the adapter: leave --merge out"
        raise JobError("GTJ0108", f"an adapter of type {found.type} cannot be merged", where="--merge", why=why, how=how)
    if adapter and found.type == "bottleneck":
        why, how = "bottlenecks are Gentrain's own: peft has none", "leave --adapter out for its plain tensors"
        raise JobError("GTJ0108", "peft cannot load this adapter", where="--adapter", why=why, how=how)


def finish(
    folder: Path,
    language: Language,
    account: Mapping[str, Any],
    dtype: str,
    *,
    merge: bool,
    frozen: bool = False,
    template: str | None = None,
) -> list[str]:
    """Make of the tensors in `folder` what others load, and return the names of the files of weights. `frozen`: some of the base's were not
    trained, and are not among them. `template` is the text of the chat template that the job named.

    JobError GTJ0118 and others when the base is not to be had, GTJ0208 when it is another one, GTJ0108 for what cannot be merged.
    """
    base, adapter = language.base, language.adapter
    assert base is not None
    if adapter is not None and adapter.type == "bottleneck":
        if template is not None:
            (folder / FILE).write_text(template, encoding="utf-8")
        return sorted(path.name for path in folder.glob("model*.safetensors"))
    with tempfile.TemporaryDirectory(prefix="gentrain-base-") as scratch:
        found = fetched(base, str(account["uri"]), Path(scratch), weights=merge or (frozen and adapter is None))
        _same(account, found)
        if adapter is None and frozen:
            _complete(folder, found, language.task, dtype)
        elif language.method == "reward":
            _scored(folder, found, adapter, base, dtype, merge=merge)
        elif adapter is None:
            for name in found.files:
                if name in (*TOKENS, "generation_config.json"):
                    shutil.copyfile(found.folder / name, folder / name)
            config = {**found.json(CONFIG), "dtype": DTYPES[dtype]}
            config.pop("torch_dtype", None)
            (folder / CONFIG).write_bytes(text(config))
        elif merge:
            _merge(folder, found, adapter, language.task, dtype)
        else:
            _adapter(folder, found, adapter, base, language.task)
        if template is not None:
            templates.carry(folder, found, template, language, TOKENS)
        elif language.task == "causal":
            templates.stops(folder, found, language)
    return sorted(path.name for path in folder.glob("*.safetensors"))


def _same(account: Mapping[str, Any], found: Pretrained) -> None:
    """See that what was fetched is of the base that the checkpoint names, as far as it was fetched."""
    known = {name: digest for name, digest in account["files"].items() if name in found.files}
    if known != dict(found.files):
        compare({**account, "files": known, "digest": ""}, found)


def _tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("model*.safetensors*")):
        if path.suffix == ".safetensors":
            found |= load_file(path)
        path.unlink()
    return {name: tensor for name, tensor in found.items() if name not in HEADS}


def _adapter(folder: Path, found: Pretrained, adapter: Adapter, base: Base, task: Task) -> None:
    """adapter_config.json and adapter_model.safetensors. The base is made without weights: only the names of its layers count."""
    import torch

    from trainjobs.models.adapters import adapted
    from trainjobs.models.pretrained import configured

    trained = _tensors(folder)
    config, kind = configured(found, task)
    with torch.device("meta"):
        model: Any = adapted(kind(config), adapter, _tokenizer(found, adapter), task)
    _fill(model, trained)
    if adapter.type in VIRTUAL:
        model.prompt_tokens["default"] = torch.arange(adapter.virtual_tokens)  # no tensor of the module
    _write(folder, model, base)


def _write(folder: Path, model: Any, base: Base) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    written = model.peft_config["default"]
    written.base_model_name_or_path = base.source.removeprefix("hf://").removeprefix("file://")
    written.revision = base.revision
    model.name_or_path = ""
    named, written.base_model_name_or_path = (
        written.base_model_name_or_path,
        None,
    )  # peft would ask a hub for the configuration of that name
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    written.base_model_name_or_path, written.inference_mode = named, True
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / ADAPTER, metadata={"format": "pt"})
    written.save_pretrained(str(folder))


def _scored(folder: Path, found: Pretrained, adapter: Adapter | None, base: Base, dtype: str, *, merge: bool) -> None:
    """A model of rewards: the whole one, its adapter, or both merged."""
    tokenizer = read(found)
    if adapter is None:
        config = {**scores.configured(found, tokenizer), "dtype": DTYPES[dtype]}
        config.pop("torch_dtype", None)
        (folder / CONFIG).write_bytes(text(config))
        for name in TOKENS:
            if name in found.files:
                shutil.copyfile(found.folder / name, folder / name)
        return
    made = scores.adapter_of(found, adapter, tokenizer, _tensors(folder), weights=merge)
    if merge:
        _save(folder, made.merge_and_unload(safe_merge=True), found, dtype)
    else:
        _write(folder, made, base)


def _tokenizer(found: Pretrained, adapter: Adapter) -> PretrainedTokenizer | None:
    """Where it says which rows were trained."""
    return read(found) if adapter.train_tokens else None


def _complete(folder: Path, found: Pretrained, task: Task, dtype: str) -> None:
    """The base with what was trained of it, as transformers saves it."""
    from trainjobs.models.pretrained import load

    model: Any = load(found, half=False, context=1, task=task)
    told = model.load_state_dict(_tensors(folder), strict=False)
    if told.unexpected_keys:
        why = f"it has no {', '.join(told.unexpected_keys[:3])}"
        raise JobError("GTJ0208", "the checkpoint is of another model than the base", where=found.uri, why=why)
    _save(folder, model, found, dtype)


def _merge(folder: Path, found: Pretrained, adapter: Adapter, task: Task, dtype: str) -> None:
    """The base with the adapter's changes in its weights, as transformers saves it."""
    from trainjobs.models.adapters import adapted, tied
    from trainjobs.models.pretrained import load

    base = load(found, half=False, context=1, task=task)
    if tied(base, adapter):
        why = "the embedding and the last layer of this base share their weights, and only one of them would be changed"
        how = "export the adapter (leave --merge out), or train with other targets"
        raise JobError("GTJ0108", "the adapter cannot be merged", where="--merge", why=why, how=how)
    model: Any = adapted(base, adapter, _tokenizer(found, adapter), task)
    _fill(model, _tensors(folder))
    _save(folder, model.merge_and_unload(safe_merge=True), found, dtype)


def _save(folder: Path, model: Any, found: Pretrained, dtype: str) -> None:
    import torch

    whole = model.to(getattr(torch, DTYPES[dtype]))
    whole.config.use_cache = True
    whole.save_pretrained(str(folder))
    for name in TOKENS:
        if name in found.files:
            shutil.copyfile(found.folder / name, folder / name)


def _fill(model: Any, trained: Mapping[str, Any]) -> None:
    """The adapter's own weights, all of them."""
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if wanted != set(trained):
        differing = ", ".join(sorted(wanted ^ set(trained))[:3])
        raise JobError("GTJ0208", "the checkpoint's adapter is another one", where="language.adapter", why=f"{differing} differ")
    model.load_state_dict(trained, strict=False, assign=True)


def facts(folder: Path, name: str, network: str, weights: list[str], account: Mapping[str, Any]) -> None:
    """What gentrain.json says of the files, as they are now."""
    told = json.loads((folder / name).read_bytes())
    (folder / name).write_bytes(text({**told, "networks": {network: weights}, "base": {key: account[key] for key in ("uri", "digest")}}))
