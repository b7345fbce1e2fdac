"""What generated pictures are compared with: the features of real ones, computed once by all ranks and kept from then on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.metrics import BUILTIN
from trainjobs.api.quality import decisive, pictures, qualities
from trainjobs.api.uris import builtin as name_of
from trainjobs.data.latents import unencoded
from trainjobs.data.source import Source, squares
from trainjobs.evaluate import feature_file, features
from trainjobs.evaluate.features import Features
from trainjobs.evaluate.frechet import Moments, frechet
from trainjobs.evaluate.inception_score import inception_score
from trainjobs.evaluate.kernel_distance import kernel_distance
from trainjobs.evaluate.later import Later
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.manifold import precision, recall
from trainjobs.evaluate.spread import whole
from trainjobs.noise import Noise
from trainjobs.stores.store import digest
from trainjobs.world import World, outcome

_VERSION = 2  # of which real pictures there are features; part of the name of their file


@dataclass(eq=False)
class Compared:
    """Of a run. `wanted` of fid, kid, is, precision, recall; `awaited`: something is decided by one of them, so every rank is to know them
    at once. `count` pictures are generated; `cache` is a folder, `data` the digest of what the job is trained on."""

    spec: Spec
    source: Source
    world: World
    features: Features
    cache: Path
    data: str
    warn: Callable[[JobError], None] = lambda error: None
    later: Later = field(default_factory=Later)
    before: Mapping[str, float] = field(default_factory=dict)  # a GAN's figures of the evaluation before, where they come late
    _real: Tensor | None = None

    @classmethod
    def open(
        cls, spec: Spec, source: Source, world: World, cache: Path, data: str, warn: Callable[[JobError], None] = lambda error: None
    ) -> Compared | None:
        """None where nothing of it is measured. Every rank must call it; all raise the same JobError, as of feature_file.read, and GTJ0108
        where data are no pictures, or `is` has no classes."""
        if not qualities(spec):
            return None
        source = unencoded(source)  # samples are compared as they are decoded
        found = outcome(_features, spec, source, world.device)
        for error in world.gather(found if isinstance(found, Exception) else None):
            if error is not None:
                raise error
        return cls(spec, source, world, found, cache, data, warn)

    @property
    def wanted(self) -> frozenset[str]:
        return qualities(self.spec)

    @property
    def awaited(self) -> bool:
        return any(name.partition("/")[0] in self.wanted for name in decisive(self.spec))

    @property
    def count(self) -> int:
        return pictures(self.spec)

    @property
    def path(self) -> Path:
        """Where the real features are kept: by what they are of, and what they are."""
        what = [_VERSION, self.data, self.spec.data.model_dump(mode="json"), self.count, self.features.digest]
        return self.cache / f"features-{digest(json.dumps(what, sort_keys=True).encode()).partition(':')[2][:32]}.safetensors"

    def prepare(self, micro: int, looking: Looking) -> None:
        """Have the real features, on rank 0. Every rank must call it. They are of the training data as they are trained on, changed by
        data.images.augment as there, and of the same ones whatever the run's seed is."""
        if self.world.lead(self._kept):
            return
        source = squares(self.source)
        total, found = min(self.count, self.source.info.length), []
        for rows, counts in looking.turns("features of real pictures", total, micro, self.world):
            noise = Noise.of(0, 0, "features", rows.to(self.world.device))
            images = source.batch(rows, 0, noise)["image"].to(self.world.device)
            if counts:
                found.append(self.features.of(images)[0])
        real = whole(self.world.collect(found))
        if real is not None:
            self._real = real
            self._told(real)
            self._keep(real)

    def figures(self, made_NF: Tensor, logits_NK: Tensor | None) -> Mapping[str, float]:
        """On rank 0, of generated pictures' features: {"fid/digits": ...}. The part that may take long."""
        real = self._real
        assert real is not None, "after prepare"
        with torch.no_grad():
            few = min(len(real), len(made_NF)) < 2
            each: dict[str, Callable[[], float]] = {
                "fid": lambda: frechet(self._moments, Moments.of(made_NF)),
                "kid": lambda: kernel_distance(real, made_NF),
                "precision": lambda: precision(real, made_NF),
                "recall": lambda: recall(real, made_NF),
            }
            if logits_NK is not None:
                each["is"] = lambda: inception_score(logits_NK)
            return {f"{word}/{self.features.name}": float("nan") if few else each[word]() for word in sorted(self.wanted & {*each})}

    @cached_property
    def _moments(self) -> Moments:
        assert self._real is not None, "after prepare"
        return Moments.of(self._real)

    def _kept(self) -> bool:
        """On rank 0: whether it has them, from this run or from the cache."""
        if self._real is None:
            try:
                self._real = load_file(self.path)["features"]
            except (OSError, SafetensorError, KeyError):
                return False
        return True

    def _keep(self, real: Tensor) -> None:
        """A cache that cannot be written costs its being computed again."""
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            save_file({"features": real.contiguous()}, unfinished)
            os.replace(unfinished, self.path)
        except (OSError, SafetensorError):
            with suppress(OSError):
                unfinished.unlink()

    def _told(self, real: Tensor) -> None:
        fewest, wide = min(len(real), self.count), real.shape[1]
        if "fid" in self.wanted and fewest <= wide:
            of = f"{self.count} generated and {len(real)} real pictures"
            what = f"fid/{self.features.name} is of {of}, and of {wide} features"
            why = "a covariance of no more samples than features has directions without variance: the distance is far off"
            how = f"generate more than {wide} (evaluation.fidSamples), compare scores of equal numbers only, or take kid, which has no bias"
            self.warn(JobError("GTJ0108", what, where="spec.evaluation.fidSamples", why=why, how=how))


def _features(spec: Spec, source: Source, device: torch.device) -> Features:
    if source.info.kind != "image":
        what, why = "there are no pictures to compare", f"the data is of kind {source.info.kind}"
        how = "take fid, kid, is, precision and recall out of evaluation.metrics"
        raise JobError("GTJ0108", what, where="spec.evaluation.metrics", why=why, how=how)
    if spec.evaluation.features == BUILTIN:
        return features.builtin(name_of(spec.data.uri) == "digits", device)
    _, height, width = source.info.shape
    found = feature_file.read(spec.evaluation.features, device, (height, width))
    if "is" in qualities(spec) and found.of(torch.zeros(2, 3, height, width, device=device))[1] is None:
        what, why = "is needs a classifier", "the network of evaluation.features returns features and no classes"
        how = "let it return (features [B, F], outputs before the softmax [B, K]), or take is out"
        raise JobError("GTJ0108", what, where="spec.evaluation.features", why=why, how=how)
    return found
