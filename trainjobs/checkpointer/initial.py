"""Weights that a run starts from: `training.initialWeights`, a .safetensors file, or a folder as `gtj checkpoints export` or Hugging Face's
`save_pretrained` writes it.

It is the beginning of a new run, at step 0 with a new optimizer, and not asked for again once the run has a checkpoint of its own. Each
rank reads the files itself, checks that names and shapes are those of the networks, one to one, and fills its part of the fp32 weights
that the optimizer works on: at any ZeRO stage, with any number of workers, and without passing through bf16.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.uris import file_path
from trainjobs.checkpointer.restorer import opened
from trainjobs.checkpointer.trained import Trained
from trainjobs.checkpoints import open_store
from trainjobs.checkpoints.tensors import SUFFIX, Slice, read_layout
from trainjobs.data.tokens import TRAINED
from trainjobs.engine.engine import Engine, persistent_buffers
from trainjobs.export.huggingface import END
from trainjobs.stores.store import BlobStore, Missing, StoreError, check_key
from trainjobs.world import World, outcome

ADVICE = (
    "gtj checkpoints export and transformers' save_pretrained write what is read here; a checkpoint itself goes into checkpoints.resumeFrom"
)
WANTED = ("fp32", "buffer")
THEIRS = ("diffusion_pytorch_model", "model")  # names of the one network of a folder: diffusers', transformers'
LISTED = 12  # of what was left, in the timeline
MOST_HEADER = 100_000_000  # bytes, as in safetensors itself


def load(uri: str, trained: Trained, world: World, scratch: Path, *, partly: bool = False) -> str:
    """Start from the weights at `uri`; every rank must call it, before the first step. `scratch` is a local folder. With `partly` what fits
    is taken, and what was taken and what was left is returned, in words; without, all must fit, and "" is returned.

    JobError GTJ0118 when there are none, GTJ0209 when a file is damaged, GTJ0208 when they are of another model, GTJ0112 and GTJ0114 when
    they cannot be fetched. Every rank raises the same.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="initial-") as name:
        found = outcome(_read, uri, trained, Path(name), partly)
        for error in world.gather(found if isinstance(found, Exception) else None):
            if error is not None:
                raise error
        for network in trained.engines:
            for part in trained.parts(network, own=False):
                kind, _, path = part.slice.key.partition("/")
                if kind in WANTED and path in found[network].tensors:
                    part.fill(found[network].tensors[path].narrow(0, part.slice.start, part.slice.length))
    for engine in trained.engines.values():
        engine.publish()
    if trained.ema is not None:
        trained.ema.restart()
    return "; ".join(found[name].words(name) for name in found) if partly else ""


@dataclass(frozen=True)
class Fitting:
    """The tensors by the names of the network's own, flat; and of those that do not fit, why: [] where all must and do."""

    tensors: dict[str, Tensor]
    differing: list[str]

    def words(self, name: str) -> str:
        shown = "; ".join(self.differing[:LISTED])
        more = f"; and {len(self.differing) - LISTED} more" if len(self.differing) > LISTED else ""
        left = f", {len(self.differing)} left: {shown}{more}" if self.differing else ", none left"
        return f"initial weights of the {name}: {len(self.tensors)} tensors taken{left}"


def copied(uri: str, copies: Mapping[str, nn.Module], world: World, scratch: Path) -> None:
    """The same for frozen networks that begin as trained ones do, given by the names of those: at every start, as they are in no
    checkpoint. Every rank must call it before they are frozen. JobErrors as of `load`."""
    if not copies:
        return
    root, _, file = uri.rpartition("/") if uri.endswith(SUFFIX) else (uri.rstrip("/"), "", "")
    with tempfile.TemporaryDirectory(dir=scratch, prefix="initial-") as name:
        for network, module in copies.items():
            found = outcome(_tensors, root, [file.removesuffix(SUFFIX)] if file else [network, *THEIRS], Path(name) / network)
            for error in world.gather(found if isinstance(found, Exception) else None):
                if error is not None:
                    raise error
            with torch.no_grad():
                for path, parameter in module.named_parameters(remove_duplicate=False):
                    if path in found and found[path].numel() == parameter.numel():  # of others, `load` speaks
                        parameter.copy_(found[path].view_as(parameter))


def _tensors(root: str, names: list[str], scratch: Path) -> dict[str, Tensor]:
    scratch.parent.mkdir(exist_ok=True)
    return {key: value for path in fetch(root, names, scratch) for key, value in opened(path).items()}


def _read(uri: str, trained: Trained, scratch: Path, partly: bool = False) -> dict[str, Fitting]:
    """By network, the tensors that it needs."""
    engines = trained.engines
    root, _, file = uri.rpartition("/") if uri.endswith(SUFFIX) else (uri.rstrip("/"), "", "")
    if file and len(engines) > 1:
        why = f"the job has the networks {', '.join(engines)}"
        raise JobError("GTJ0208", "one file for several networks", where=uri, why=why, how=f"name a folder with <network>{SUFFIX} for each")
    _same_tokens(root, trained.beside.get(TRAINED))
    found = {}
    for name, engine in engines.items():
        # Hugging Face calls the one network of a folder otherwise.
        names = [file.removesuffix(SUFFIX)] if file else [name, *THEIRS] if len(engines) == 1 else [name]
        tensors: dict[str, Tensor] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in fetch(root, names, scratch / name):
            shapes |= {slice.key: slice.shape for slice in described(path)}
            tensors |= opened(path)
        found[name] = _fitting(name, engine, tensors, shapes, uri, partly)
    return found


def _same_tokens(root: str, tokenizer: bytes | None) -> None:
    """See that a tokenizer that lies beside the weights is the run's own, where that is a trained one: with another of as many tokens the
    shapes are the same, and the weights are worth nothing. JobError GTJ0208."""
    if tokenizer is None:
        return
    store = open_store(root)
    try:
        theirs, ours = (_vocabulary(data) for data in (get(store, TRAINED), tokenizer))
    except Missing:
        return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"{root}/{TRAINED}", f"it is no tokenizer ({error!r})") from error
    if theirs != ours:
        count = sum(theirs.get(token) == number for token, number in ours.items())
        why = f"{count} of its {len(theirs)} tokens are those of the tokenizer that was trained on this job's data"
        how = "train on the data that they were trained on, or a model of tokenizer byte"
        raise JobError("GTJ0208", "the initial weights belong to another tokenizer", where=f"{root}/{TRAINED}", why=why, how=how)


def _vocabulary(data: bytes) -> dict[str, int]:
    """The numbers of the tokens of a tokenizer of the `tokenizers` library, end of text apart."""
    return {token: number for token, number in json.loads(data)["model"]["vocab"].items() if token != END}


def fetch(root: str, names: list[str], scratch: Path) -> list[Path]:
    """The files of a network, by the first of `names` that there is; those of a local folder where they are."""
    store = open_store(root)
    scratch.mkdir(exist_ok=True)
    for name in names:
        index = f"{name}{SUFFIX}.index.json"
        try:
            listed = sorted({check_key(one) for one in json.loads(get(store, index))["weight_map"].values()})
        except Missing:
            listed = [f"{name}{SUFFIX}"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(f"{root}/{index}", f"it is no index of tensors ({error!r})") from error
        try:
            return [_local(store, root, one, scratch) for one in listed]
        except Missing as error:
            missing = error
    why = f"{missing.key} {missing.why}"
    raise JobError("GTJ0118", "there are no initial weights", where=root, why=why, how=ADVICE)


def get(store: BlobStore, key: str) -> bytes:
    try:
        return store.get(key)
    except StoreError as error:
        raise _unreachable(store, error) from error


def _local(store: BlobStore, root: str, name: str, scratch: Path) -> Path:
    """A file of the folder `root` as one of this machine. Raises Missing."""
    if root.startswith("file://"):
        there = Path(file_path(root)) / name
        if not there.is_file():
            raise Missing(name)
        return there
    path = scratch / name.replace("/", "-")
    try:
        with open(path, "wb") as file:
            for block in store.read(name):
                file.write(block)
    except StoreError as error:
        raise _unreachable(store, error) from error
    except OSError as error:
        why, how = error.strerror or str(error), "free disk space there"
        raise JobError("GTJ0114", "the initial weights cannot be copied here", where=str(path), why=why, how=how) from error
    return path


def described(path: Path) -> tuple[Slice, ...]:
    """What a file says that it holds. JobError GTJ0209 for one that is no safetensors file, or is cut off."""
    try:
        with open(path, "rb") as file:
            length = file.read(8)
            found = read_layout(length + file.read(min(int.from_bytes(length, "little"), MOST_HEADER)))
        if found.size > path.stat().st_size:
            raise ValueError(f"it has {path.stat().st_size} bytes, and describes {found.size}")
    except OSError as error:
        raise JobError("GTJ0118", "the initial weights cannot be read", where=str(path), why=error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(str(path), f"it is no safetensors file ({error})") from error
    return found.slices


def _fitting(
    name: str, engine: Engine, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], uri: str, partly: bool
) -> Fitting:
    """JobError GTJ0208 with the first that differ, or, `partly`, where nothing fits.

    A tied weight has several names, of which one will do. What is not trained is as the objective's `build` made it: the file may have it,
    or not, and it is not taken.
    """
    ours = {path: engine.span(parameter)[0] for path, parameter in engine.trained}
    ours |= {path: tuple(buffer.shape) for path, buffer in persistent_buffers(engine.module)}
    begins = {*getattr(engine.module, "begins_anew", ())}  # what such a network has beyond the one whose weights these may be
    if begins and not begins & shapes.keys():
        ours = {path: shape for path, shape in ours.items() if path not in begins}
    first = {id(parameter): path for path, parameter in engine.module.named_parameters()}
    also = {path: first[id(parameter)] for path, parameter in engine.module.named_parameters(remove_duplicate=False)}
    chosen: dict[str, str] = {}  # names in the file, by ours
    strange = []
    for theirs in sorted(shapes, key=lambda key: (also.get(key, key) != key, key)):  # the first of a tied weight's names is the one
        path = also.get(theirs, theirs)
        if path in ours:
            chosen.setdefault(path, theirs)
        elif path not in also and theirs not in getattr(engine.module, "leaves", ()):
            strange.append(f"{name} has no {theirs} {list(shapes[theirs])}")
    differing = [
        f"{path} is {list(shapes[chosen[path]])} there and {list(shape)} here" if path in chosen else f"{path} {list(shape)} is not there"
        for path, shape in ours.items()
        if path not in chosen or shapes[chosen[path]] != shape
    ] + strange
    fitting = {path: theirs for path, theirs in chosen.items() if path in ours and shapes[theirs] == ours[path]}
    if differing and not (partly and fitting):
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        how = "give the job the model that these are the weights of"
        why = "; ".join(differing[:3]) + more
        raise JobError("GTJ0208", f"the initial weights are not those of {name}", where=uri, why=why, how=how)
    return Fitting({path: tensors[theirs] for path, theirs in fitting.items()}, differing)


def _damaged(where: str, why: str) -> JobError:
    return JobError("GTJ0209", "the initial weights are damaged", where=where, why=why, how="fetch or export them again")


def _unreachable(store: BlobStore, error: StoreError) -> JobError:
    where, how = f"{store.uri}/{error.key}", "give the workers the right to read it, or correct training.initialWeights"
    return JobError("GTJ0112", "the initial weights cannot be read", where=where, why=error.why, how=how)
