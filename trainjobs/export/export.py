"""A checkpoint as files that others read: each network's whole tensors under the parameters' own names.

    <network>.safetensors     or, above 5 GB, <network>-00001-of-00002.safetensors ... and <network>.safetensors.index.json
    gentrain.json             what it is: family, step, digest of the checkpoint, weights, number type
    config.json, tokenizer.json ...     of a language model, whose network is called model: Hugging Face's layout
    config.json                         of an autoencoder-kl, whose weights are in diffusion_pytorch_model.safetensors: diffusers' layout
    vae/                                such a folder, of a diffusion model of latents: the autoencoder that it was trained with

The ranks' files stream through a sieve into the places where their elements belong; nothing else is kept, and torch is not imported. All is
written into <folder>.partial, which gets its name when every byte has been compared with its digest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from trainjobs.api.diffusion import Diffusion
from trainjobs.api.errors import JobError
from trainjobs.api.language import Language
from trainjobs.checkpoints import Checkpoints, Commit, Corrupt, RankManifest
from trainjobs.checkpoints.sieve import Index, Sieve, wholes
from trainjobs.checkpoints.tensors import INDEX, ITEM, SUFFIX, Layout, Slice, decode_index, layout
from trainjobs.data.chat_template import FILE as TEMPLATE
from trainjobs.data.tokens import TRAINED
from trainjobs.export import autoencoders, pipelines, pretrained
from trainjobs.export.half_precision import STORED, converter
from trainjobs.export.huggingface import files, text
from trainjobs.models.configuration import EMBEDDING

LIMIT = 5_000_000_000  # bytes of a file; transformers' own is 5 GB too
FACTS = "gentrain.json"


@dataclass(frozen=True)
class Exported:
    weights: str  # ema or live
    networks: tuple[str, ...]
    size: int  # bytes of all weights
    hugging_face: bool
    live: tuple[str, ...]  # networks whose last weights these are, because they are not averaged, beside the averages of others
    frozen: bool  # there are weights that were not trained: neither the checkpoint has them nor this
    adapter: bool = False  # it is an adapter of a base
    pipeline: bool = False  # it is what diffusers loads
    settled: bool = True  # batch norm's statistics are those of the weights that were written


@dataclass(frozen=True)
class Network:
    """What is to be written of a network. `tensors` by their key in the checkpoint; `outputs` are the files, `place` says in which of them
    a tensor is, and from which byte on."""

    name: str
    tensors: Mapping[str, Slice]
    outputs: tuple[Layout, ...]
    place: Mapping[str, tuple[int, int]]
    file: str = ""  # what its files are called, where not as itself

    @property
    def stem(self) -> str:
        return self.file or self.name

    def files(self) -> list[str]:
        count = len(self.outputs)
        return [f"{self.stem}{SUFFIX}" if count == 1 else f"{self.stem}-{i + 1:05}-of-{count:05}{SUFFIX}" for i in range(count)]


def export(
    checkpoints: Checkpoints,
    commit: Commit,
    folder: Path,
    *,
    weights: str | None,
    dtype: str,
    limit: int = LIMIT,
    adapter: bool = False,
    merge: bool = False,
    style: str | None = None,
    plain: bool = False,
    complete: Callable[[Path], bool] | None = None,
) -> Exported:
    """Write a checkpoint into `folder`, which does not exist or is empty. `weights`: ema, live, or None for ema where there is one. Of a
    language model with an adapter that adapter, or with `merge` the base that it has changed; `adapter` insists on one.
    Of a pretrained pipeline what diffusers loads, or by `style` kohya's keys; `plain`: as the checkpoint has it. `complete` gets the
    folder, before it has its name, of averages of networks with batch norm, and says whether it put the average's statistics into it.

    Raises Corrupt; JobError GTJ0108 for an average that the checkpoint has not, GTJ0114 when the folder cannot be written.
    """
    told = commit.metadata
    if "parameters" not in told or "spec" not in told:
        why = "it was written by a version that did not say what its weights belong to"
        raise JobError("GTJ0208", "the checkpoint cannot be exported", where=commit.prefix, why=why, how="resume from it and save again")
    family = told["spec"].get("language")
    language = Language.model_validate(family) if family else None
    diffusion = Diffusion.model_validate(told["spec"]["diffusion"]) if "diffusion" in told["spec"] else None
    if diffusion is None:
        pretrained.allowed(language, adapter, merge)
    pipelines.allowed(diffusion, adapter and diffusion is not None, merge and diffusion is not None, style)
    averaged = {*told.get("averaged", told["parameters"])} if told["ema"] else set()  # checkpoints of before averaged every network
    if weights == "ema" and not averaged:
        raise JobError("GTJ0108", "the checkpoint has no moving average", where=commit.prefix, how="take --weights live")
    weights = weights or ("ema" if averaged else "live")
    ranks = checkpoints.ranks(commit)
    indexes = [read_index(checkpoints, commit, rank) for rank in ranks]
    kinds = {name: "ema" if weights == "ema" and name in averaged else "fp32" for name in sorted(told["parameters"])}
    networks = [network(commit, indexes, name, kind, dtype, limit) for name, kind in kinds.items()]
    if autoencoders.is_one(told["spec"]):
        networks = [replace(found, file=autoencoders.WEIGHTS) for found in networks]
    beside, layout_of_others = companions(checkpoints, commit, ranks[0], networks, weights, averaged, dtype)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise JobError("GTJ0114", "the folder is not empty", where=str(folder), why="nothing is overwritten", how="name a new folder")
        partial = folder.absolute().with_name(f"{folder.absolute().name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            for found in networks:
                write(checkpoints, commit, ranks, indexes, found, dtype, partial)
            for name, data in beside.items():
                (partial / name).write_bytes(data)
            if language is not None and language.base is not None:
                template = _template(checkpoints, commit, ranks[0]) if language.template is not None else None
                frozen = bool(told.get("frozen"))
                written = pretrained.finish(partial, language, told["base"], dtype, merge=merge, frozen=frozen, template=template)
                pretrained.facts(partial, FACTS, "model", written, told["base"])
            if diffusion is not None and diffusion.pretrained is not None:
                written = sorted(path.name for path in partial.glob(f"*{SUFFIX}"))
                if not plain:
                    written = pipelines.finish(partial, diffusion, told["base"], dtype, merge=merge, style=style)
                pretrained.facts(partial, FACTS, "denoiser", written, told["base"])
            settled = not any(kinds[found.name] == "ema" and has_norms(found) for found in networks)
            settled = settled or (complete is not None and complete(partial))
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        why, how = error.strerror or str(error), "free disk space there, or make it writable"
        raise JobError("GTJ0114", "the export cannot be written", where=str(folder), why=why, how=how) from error
    size = sum(path.stat().st_size for path in folder.rglob(f"*{SUFFIX}"))
    live = tuple(name for name, kind in kinds.items() if kind == "fp32") if weights == "ema" else ()
    part = language is not None and language.adapter is not None and not merge
    pipeline = diffusion is not None and diffusion.pretrained is not None and not plain
    small = pipeline and diffusion is not None and diffusion.adapted.type != "full" and not merge
    missing = bool(told.get("frozen")) and not pipeline and (language is None or language.base is None)
    return Exported(weights, tuple(kinds), size, layout_of_others, live, missing, part or small, pipeline, settled)


def _template(checkpoints: Checkpoints, commit: Commit, first: RankManifest) -> str:
    """The text of the chat template that the job named."""
    blocks: list[bytes] = []
    checkpoints.stream(commit, first, TEMPLATE, blocks.append)
    return b"".join(blocks).decode()


def has_norms(network: Network) -> bool:
    """Whether it has running statistics."""
    return any(key.endswith(".running_mean") for key in network.tensors)


def read_index(checkpoints: Checkpoints, commit: Commit, rank: RankManifest) -> Index:
    """Raises Corrupt."""
    blocks: list[bytes] = []
    checkpoints.stream(commit, rank, INDEX, blocks.append)
    try:
        return decode_index(b"".join(blocks))
    except ValueError as error:
        raise Corrupt(f"{commit.prefix}/rank-{rank.rank}/{INDEX}", str(error)) from error


def network(commit: Commit, indexes: list[Index], name: str, kind: str, dtype: str, limit: int) -> Network:
    """Raises Corrupt when the ranks' files do not make up the whole."""
    file = f"{name}{SUFFIX}"
    try:
        parameters = wholes(indexes, file, kind)
        if len(parameters) != commit.metadata["parameters"][name]:
            raise ValueError(f"has {len(parameters)} parameters, not {commit.metadata['parameters'][name]}")
        tensors = [*parameters, *wholes(indexes[:1], file, "buffer")]  # of buffers each rank has its own
    except ValueError as error:
        raise Corrupt(f"{commit.prefix}/*/{file}", str(error)) from error
    groups: list[list[Slice]] = [[]]
    size, key_of = 0, {}
    for found in tensors:
        parameter = found.key.partition("/")[2]
        written = Slice(parameter, STORED[dtype] if found.dtype == "F32" else found.dtype, found.shape, 0, found.length)
        if groups[-1] and size + written.bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(written)
        size += written.bytes
        key_of[parameter] = found.key
    outputs = tuple(layout(group, {"format": "pt"}) for group in groups)  # transformers asks for the format
    place = {
        key_of[slice.key]: (number, offset)
        for number, output in enumerate(outputs)
        for slice, offset in zip(output.slices, output.offsets, strict=True)
    }
    return Network(name, {found.key: found for found in tensors}, outputs, place)


def companions(
    checkpoints: Checkpoints, commit: Commit, first: RankManifest, networks: list[Network], weights: str, averaged: set[str], dtype: str
) -> tuple[dict[str, bytes], bool]:
    """All files but the weights, and whether they are in Hugging Face's layout."""
    spec: Mapping[str, Any] = commit.metadata["spec"]
    family = next(name for name in spec if name != "images")
    facts = {
        "format": 1,
        "family": family,
        "step": commit.step,
        "samples": commit.samples,
        "checkpoint": commit.prefix,
        "digest": commit.manifest_digest,
        "weights": weights,
        **({"averaged": sorted(averaged)} if weights == "ema" else {}),
        "dtype": dtype,
        "networks": {found.name: found.files() for found in networks},
        "spec": dict(spec),
        **({"drawing": commit.metadata["drawing"]} if "drawing" in commit.metadata else {}),
        "versions": {name: version for name, version in commit.metadata.get("versions", {}).items() if name != "platform"},
    }
    beside = {FACTS: text(facts)}
    for found in networks:
        if len(found.outputs) > 1:
            names = found.files()
            where = {slice.key: names[number] for number, output in enumerate(found.outputs) for slice in output.slices}
            total = {"total_size": sum(slice.bytes for output in found.outputs for slice in output.slices)}
            beside[f"{found.stem}{SUFFIX}.index.json"] = text({"metadata": total, "weight_map": dict(sorted(where.items()))})
    if autoencoders.is_one(spec):
        return beside | {autoencoders.CONFIG: text(autoencoders.told(commit.metadata))}, False
    if family != "language":
        return beside, False
    language = Language.model_validate(spec["language"])
    if language.base is not None:
        return beside, True
    kind = "ema" if weights == "ema" else "fp32"
    vocabulary = networks[0].tensors[f"{kind}/{EMBEDDING[language.network.architecture]}"].shape[0]
    blocks: list[bytes] = []
    if language.tokenizer.type == "bpe":
        checkpoints.stream(commit, first, TRAINED, blocks.append)
    return beside | files(language.network, vocabulary, dtype, b"".join(blocks) or None, reward=language.method == "reward"), True


def write(
    checkpoints: Checkpoints, commit: Commit, ranks: list[RankManifest], indexes: list[Index], network: Network, dtype: str, folder: Path
) -> None:
    """Write a network's files, synced. Raises Corrupt, and OSError before anything is read when there is no room."""
    convert = converter(dtype) if dtype != "fp32" else None
    with ExitStack() as stack:
        outputs = [stack.enter_context(open(folder / name, "xb")) for name in network.files()]
        for file, output in zip(outputs, network.outputs, strict=True):
            allocate(file, output.size)
            file.write(output.header)

        def take(slice: Slice, first: int, data: memoryview) -> None:
            number, offset = network.place[slice.key]
            half = convert if slice.dtype == "F32" else None
            outputs[number].seek(offset + first * (2 if half else ITEM[slice.dtype]))
            outputs[number].write(half(data) if half else data)

        for rank, index in zip(ranks, indexes, strict=True):
            name = f"{network.name}{SUFFIX}"
            if name not in index:
                continue
            wanted = [key for key in network.tensors if rank.rank == 0 or not key.startswith("buffer/")]
            sieve = Sieve(layout(index[name]), wanted, take)
            checkpoints.stream(commit, rank, name, sieve.feed)
            if not sieve.fits:
                raise Corrupt(f"{commit.prefix}/rank-{rank.rank}/{name}", "is laid out otherwise than its index says")
        for file in outputs:
            file.flush()
            os.fsync(file.fileno())


def allocate(file: BinaryIO, size: int) -> None:
    """Take the disk space of a file now; where the system cannot, only its length."""
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)
