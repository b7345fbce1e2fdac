"""torch's switch for TF32 stands as the job says while it trains, and as it was before and afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from trainjobs.models.frozen_autoencoder import FrozenAutoencoder
from trainjobs.models.tf32 import single, tf32


def allowed() -> bool:
    return bool(torch.backends.cuda.matmul.allow_tf32)


@pytest.mark.parametrize("before", [False, True])
def test_the_switch_stands_where_it_stood_afterwards(before: bool) -> None:
    with tf32(before):
        for asked in (False, True):
            with suppress(KeyError), tf32(asked):
                assert allowed() is asked
                raise KeyError
            assert allowed() is before


def test_single_precision_is_in_full_within_a_run_in_tf32() -> None:
    with tf32(True), torch.autocast("cpu", torch.bfloat16):
        with single(torch.device("cpu")):
            assert not allowed()
            assert not torch.is_autocast_enabled("cpu")
        assert allowed()


def test_a_frozen_autoencoder_rounds_nothing() -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    whole, seen = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8), list[bool]()
    for part in (whole.encoder, whole.decoder):
        part.register_forward_hook(lambda *_: seen.append(allowed()))
    frozen = FrozenAutoencoder(whole)
    with tf32(True):
        frozen.decode(frozen.encode(torch.zeros(1, 3, 8, 8))[:, :4])
    assert seen == [False, False]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Path]:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield tmp_path
    dist.destroy_process_group()


@pytest.mark.slow  # importing the loop imports DeepSpeed
def test_a_run_trains_under_torchs_own_switch(alone: Path) -> None:
    from bench.training import FAMILIES, manifest
    from trainjobs.api.job import Job
    from trainjobs.loop import train
    from trainjobs.world import World

    found = {}
    for asked in (False, True):
        told, run = manifest("vae", {**FAMILIES["vae"], "steps": 2, "batch": 8}), alone / str(asked)
        told["spec"]["training"]["tf32"] = asked
        run.mkdir()
        seen: list[bool] = []
        train(Job.model_validate(told), run, World(0, 1, torch.device("cpu")), heartbeat=lambda step, seen=seen: seen.append(allowed()))  # type: ignore[misc]
        found[asked] = set(seen)
    assert found == {False: {False}, True: {True}}
    assert not allowed()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0), reason="no GPU with TF32")
def test_products_on_a_gpu_are_rounded() -> None:
    left, right = torch.randn(2, 256, 256, device="cuda").unbind()
    exact = (left.double() @ right.double()).float()
    errors = {}
    for asked in (False, True):
        with tf32(asked):
            errors[asked] = float((left @ right - exact).abs().max())
    assert errors[False] < 1e-4 < errors[True] < 1e-1
