"""Features by a network of the user's own: `evaluation.features`, a file of TorchScript (.pt, .ts) or of torch.export (.pt2).

Both formats hold a graph of operations and tensors. What a pickle in them would run is not run: TorchScript's reader knows tensors and its
own classes only, and that of torch.export is held to weights, where by itself it would fall back to unpickling anything.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.evaluate.features import Features
from trainjobs.stores.open import open_store
from trainjobs.stores.store import Missing, StoreError, digest

WHERE = "spec.evaluation.features"
_ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load's own switch, which no argument overrules


def read(uri: str, device: torch.device, size: tuple[int, int]) -> Features:
    """The file's, tried with two pictures and with three of so many pixels. JobError GTJ0118 when there is none, GTJ0112 when a store
    refuses it, GTJ0102 when it is no network of that kind."""
    folder, _, name = uri.rpartition("/")
    try:
        data = open_store(folder).get(name)
    except Missing as error:
        how = "write the URI of a .pt or .pt2 file, or leave evaluation.features out"
        raise JobError("GTJ0118", "there is no file of features", where=uri, why=f"{name} {error.why}", how=how) from error
    except (StoreError, OSError) as error:
        how = "see that this identity may read there"
        raise JobError("GTJ0112", "the file of features cannot be read", where=uri, why=str(error), how=how) from error
    network = _network(data, uri, device)

    def compute(images: Tensor) -> tuple[Tensor, Tensor | None]:
        return _answer(network(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images))

    for count in (2, 3):
        _tried(compute, torch.zeros(count, 3, *size, device=device), uri)
    return Features("file", compute, digest(data))


def _network(data: bytes, uri: str, device: torch.device) -> Callable[[Tensor], Any]:
    try:
        with warnings.catch_warnings(), _weights_only():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and it is what there is of Inception
            if uri.endswith(".pt2"):
                exported = torch.export.load(io.BytesIO(data)).module().to(device)
                return exported
            scripted: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(data), map_location=device).eval()  # type: ignore[no-untyped-call]
            return scripted
    except Exception as error:  # readers meet strange bytes with anything
        kind = "torch.export.save writes a .pt2 file" if uri.endswith(".pt2") else "torch.jit.save writes a .pt file"
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
        how = f"{kind}; weights alone, or a pickled module, are no network"
        raise JobError("GTJ0102", "the file of features holds no network", where=uri, why=why, how=how) from error


def _answer(found: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(found, Tensor):
        return found.flatten(1), None
    features, logits = found
    return features.flatten(1), logits


def _tried(compute: Callable[[Tensor], tuple[Tensor, Tensor | None]], images: Tensor, uri: str) -> None:
    shape, how = list(images.shape), "let it take pictures float32 [B, 3, H, W] in [-1, 1] of any B (torch.export: a dynamic dimension)"
    try:
        with torch.no_grad():
            features, logits = compute(images)
        if not all(len(part) == len(images) and part.dim() == 2 for part in (features, logits) if part is not None):
            raise ValueError(f"it returns {list(features.shape)}, which are no features of {len(images)} pictures")
    except Exception as error:  # a network of somebody else's
        why = f"asked with {shape}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__}"
        raise JobError("GTJ0102", "the network of features does not take pictures", where=uri, why=why, how=how) from error


@contextmanager
def _weights_only() -> Iterator[None]:
    before = os.environ.get(_ONLY_WEIGHTS)
    os.environ[_ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ONLY_WEIGHTS]
        else:
            os.environ[_ONLY_WEIGHTS] = before
