"""The data of a run as its model sees it: pictures prepared ahead, of a latent diffusion model their latents, and beside texts what a
teacher says of them where it is asked once.

The autoencoder is frozen, and in no checkpoint; a digest of its files is in every commit, and a run goes on only with the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.latents import KEPT
from trainjobs.checkpointer.taught_ahead import foretold
from trainjobs.data import pixels, rule_of
from trainjobs.data import tables as pictures
from trainjobs.data.ahead import ahead, close
from trainjobs.data.bucketed import BucketedImages
from trainjobs.data.curriculum import eased
from trainjobs.data.found import Found
from trainjobs.data.latents import NONE, VERSION, CachedLatents, EncodedLatents, shaped_tables
from trainjobs.data.latents import tables as written
from trainjobs.data.pretrained import together
from trainjobs.data.source import DataInfo, Numbered, Source
from trainjobs.export.companion import FIELD, SLOT, opened
from trainjobs.world import World

if TYPE_CHECKING:
    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder

PATIENCE = 10.0  # seconds between two signs of life of whoever waits for the one that encodes


def prepared(
    spec: Spec,
    source: Source,
    found: Sequence[Found],
    cache: Path,
    world: World,
    before: Mapping[str, Any],
    say: Callable[[str], None],
    ends: ExitStack,
) -> tuple[Source, dict[str, Any]]:
    """(the source that is trained on, prepared beside the steps until `ends`, what a commit keeps of its companion). Every rank must call
    it; `before` is what the commit keeps that the run goes on from.

    JobErrors of companion.opened, of data.latents.tables and of taught_ahead.foretold; GTJ0108 where the autoencoder is for other pictures.
    """
    latents = spec.diffusion.latents if spec.diffusion else None
    if latents is None:
        told, account = foretold(spec, source, cache, world, before, say)
        return eased(told, spec, world, ends), account
    companion = opened(latents.autoencoder, cache, world, before.get(SLOT))
    from trainjobs.models.frozen_autoencoder import FrozenAutoencoder  # with diffusers

    made: list[FrozenAutoencoder] = []
    together(world, lambda: made.append(FrozenAutoencoder.of(companion.folder, companion.uri)))
    (autoencoder,) = made
    info = replace(info_of(source.info, autoencoder), encoder=companion.files)
    sides_divide(spec, autoencoder.factor)
    account, device = {SLOT: companion.account}, world.device
    numbered = source if isinstance(source, Numbered) else None
    if numbered is None or not latents.cache:
        autoencoder.whole.to(device)
        pictures_ = ahead(source, spec.data.workers, world)
        ends.callback(close, pictures_)
        return EncodedLatents(pictures_, autoencoder, info, device, numbered), account
    stem = cache / f"latents-{key(spec, found, companion.digest, before, device.type)}"
    flips = any(change in KEPT for change in spec.data.images.augment)
    made_: list[CachedLatents] = []

    def encode() -> None:
        with autoencoder.on(device):
            pin = device.type == "cuda"
            if isinstance(numbered, BucketedImages):
                shaped, held = shaped_tables(numbered, autoencoder, stem, device, flips=flips, say=say)
                places = numbered.places
                made_.append(CachedLatents(numbered, autoencoder, info, device, NONE, None, held, pin, places, shaped))
            else:
                made_.append(
                    CachedLatents(
                        numbered, autoencoder, info, device, *written(numbered, autoencoder, stem, device, flips=flips, say=say), pin
                    )
                )

    together(world, lambda: patiently(encode, say))
    (kept,) = made_
    latent = ahead(kept, spec.data.workers, world)
    ends.callback(close, latent)
    return latent, account


def info_of(info: DataInfo, autoencoder: FrozenAutoencoder) -> DataInfo:
    """What is known of the latents of such pictures. JobError GTJ0108 where the autoencoder is for others."""
    channels, size, _ = info.shape
    if channels != autoencoder.channels:
        what = f"the autoencoder is for pictures of {autoencoder.channels} channels, and data.images.channels is {channels}"
        raise JobError("GTJ0108", what, where=FIELD, how=f"set data.images.channels to {autoencoder.channels}, or name another one")
    factor = autoencoder.factor
    if size % factor:
        what = f"latents are {factor} times smaller than pictures, and data.images.size is {size}"
        near = sorted({max(1, size // factor) * factor, -(-size // factor) * factor})
        raise JobError("GTJ0108", what, where=FIELD, how=f"nearest sizes that divide: {' and '.join(map(str, near))}")
    shape = (autoencoder.latent_channels, size // factor, size // factor)
    return replace(info, shape=shape, decode=autoencoder.decode)


def sides_divide(spec: Spec, factor: int) -> None:
    """JobError GTJ0108 where latents of data.images.buckets would not be whole, or halved unevenly by the network."""
    buckets, diffusion = spec.data.images.buckets, spec.diffusion
    if buckets is None or diffusion is None:
        return
    network = diffusion.network
    each = network.patch if network.architecture == "dit" else 1 << (len(network.multipliers) - 1)
    if buckets.step % (factor * each):
        why = f"sides are multiples of it, the autoencoder makes {factor} pixels one, and the network {each} of those"
        how = f"write a multiple of {factor * each}"
        what = f"a step of {buckets.step} pixels does not fit the latents"
        raise JobError("GTJ0108", what, where="data.images.buckets.step", why=why, how=how)


def key(spec: Spec, found: Sequence[Found], autoencoder: str, before: Mapping[str, Any], device: str) -> str:
    """Changes with the pictures, with what is read of them and how, with the digest of the autoencoder and with what computes; not with
    what is done to a picture afterwards."""
    data = spec.data.model_dump(mode="json", exclude={"cache": True, "workers": True, "images": {"augment", "strength"}})
    if spec.data.images.buckets is None:  # the same key as before there were any
        data["images"].pop("buckets")
    conditioning = spec.diffusion.conditioning if spec.diffusion else None
    told = {
        "versions": [VERSION, pixels.VERSION, pictures.VERSION],
        "autoencoder": autoencoder,
        "computed": [device, *(metadata.version(name) for name in ("torch", "diffusers"))],
        "objects": [[name, one.size, one.tag] for part in found for name, one in part.objects()],
        "data": data,
        "rule": before.get("data", {}).get("rule", "place") if before else rule_of(spec),
        "conditions": [conditioning.type, conditioning.length] if conditioning else [],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def patiently(act: Callable[[], None], say: Callable[[str], None]) -> None:
    """Do it, with a sign of life now and then: of the processes of a machine one encodes, and the others wait for it. It is done in this
    thread: torch may compute with other numbers of threads in others, and sum up in another order."""
    over = Event()

    def tell() -> None:
        while not over.wait(PATIENCE):
            say("waiting for latents")

    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(tell)
        try:
            act()
        finally:
            over.set()
        telling.result()
