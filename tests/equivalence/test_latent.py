"""An autoencoder-kl, and a denoiser of its latents, follow plain torch loops over diffusers' AutoencoderKL, whatever the stage, the number
of workers and the accumulation; kept latents are those that are encoded anew, and a run goes on with them as if nothing had happened."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group
import latent
import plain

pytestmark = pytest.mark.slow

STEPS, BATCH = 3, 8
SGD, ADAMW = {"name": "sgd", "learningRate": 0.02}, {"name": "adamw", "learningRate": 1e-3, "weightDecay": 0.01, "eps": 1e-4}
# Workers, stage, accumulation: each value of each, and most of their pairs.
WAYS = ((1, 0, 1), (1, 1, 2), (2, 0, 2), (2, 2, 1), (2, 3, 2))
KL = {"architecture": "autoencoder-kl", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4, "latentChannels": 2}


def spec(name: str, stage: int, accumulation: int, workers: int, autoencoder: Path, *, steps: int = STEPS) -> dict[str, Any]:
    kept = {"autoencoder": f"file://{autoencoder}", "cache": name != "anew"}
    network = {"channels": 8, "multipliers": [1, 2]}
    process = {"prediction": "v", "schedule": "scaled-linear"}
    family: dict[str, Any] = {
        "autoencoder": {"vae": {"network": KL, "loss": {"reconstruction": "l1"}}},
        "kept": {"diffusion": {"latents": kept, "network": network, "process": process, "sampler": {"steps": 2}}},
        "anew": {"diffusion": {"latents": kept, "network": network, "process": process, "sampler": {"steps": 2}}},
    }[name]
    # On several workers, and with accumulation, sums have another order, and Adam multiplies their rounding; of an attention's biases in
    # the autoencoder already that of diffusers' order: 1.1e-6.
    plainly = (workers, accumulation) != (1, 1) or name == "autoencoder"
    return {
        **family,
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1, "augment": ["horizontalFlip"]}},
        "training": {
            "steps": steps,
            "batch": {"global": BATCH, "micro": BATCH // (accumulation * workers)},
            "optimizers": {"default": SGD if plainly else ADAMW},
            "gradientClipping": 0.5,
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": steps}},
        "evaluation": {"samples": 4, "everySteps": steps},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("latent")
    latent.tiny(root / "whole")
    latent.tiny(root / "other", seed=1)
    return root


@pytest.fixture(scope="module")
def runs(root: Path) -> Path:
    """All of them, in two groups of processes."""
    for size in (1, 2):
        folders = [
            str(group.prepare(root / f"{name}-z{stage}-a{accumulation}-w{size}", spec(name, stage, accumulation, size, root / "whole")))
            for name in ("autoencoder", "kept", "anew")
            for workers, stage, accumulation in WAYS
            if workers == size
        ]
        group.run_group(size, folders, root)
    return root


@pytest.fixture(scope="module")
def references(root: Path) -> dict[tuple[str, int], plain.Result]:
    torch.set_num_threads(1)
    names = ("autoencoder", "kept")
    return {
        (name, a): latent.train(group.job(spec(name, 0, a, 1, root / "whole")), root / f"plain-{name}") for name in names for a in (1, 2)
    }


@pytest.mark.parametrize(("size", "stage", "accumulation"), WAYS)
@pytest.mark.parametrize("name", ["autoencoder", "kept"])
def test_follows_plain_torch(
    name: str, stage: int, accumulation: int, size: int, runs: Path, references: dict[tuple[str, int], plain.Result]
) -> None:
    run, expected = runs / f"{name}-z{stage}-a{accumulation}-w{size}", references[name, 1 if (size, accumulation) == (1, 1) else 2]
    assert group.losses(run) == pytest.approx(expected.losses["loss"], rel=1e-5)
    for network, module in expected.networks.items():
        ours = group.weights(run, network)
        assert ours.keys() == dict(module.named_parameters()).keys()
        for key, parameter in module.named_parameters():
            torch.testing.assert_close(ours[key], parameter.detach(), rtol=0, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(("size", "stage", "accumulation"), WAYS)
def test_kept_latents_are_those_encoded_anew_to_the_last_bit(size: int, stage: int, accumulation: int, runs: Path) -> None:
    kept, anew = (runs / f"{name}-z{stage}-a{accumulation}-w{size}" for name in ("kept", "anew"))
    ours, theirs = group.weights(kept, "denoiser"), group.weights(anew, "denoiser")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for metric in ("loss", "heldout/loss"):
        assert group.losses(kept, metric) == group.losses(anew, metric) != []
    assert list((kept / "cache").glob("latents-*-flipped.npy"))
    assert not list((anew / "cache").glob("latents-*"))
    drawn = [(run / "samples" / f"step-{STEPS:06}.png").read_bytes() for run in (kept, anew)]
    assert drawn[0] == drawn[1]


def commit(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((group.last_commit(run) / "MANIFEST.json").read_text())
    return found


def test_scale_of_latents_does_not_depend_on_the_cut_and_is_that_of_their_deviation(runs: Path, root: Path) -> None:
    from diffusers import AutoencoderKL

    found = {name: scale(runs / name) for name in ("autoencoder-z1-a2-w1", "autoencoder-z0-a2-w2", "autoencoder-z3-a2-w2")}
    assert list(found.values()) == pytest.approx([found["autoencoder-z1-a2-w1"]] * 3, rel=1e-6)
    # Plain torch: the deviation of latents that are drawn, of every training picture.
    from trainjobs.api.job import Job
    from trainjobs.data import open_source
    from trainjobs.noise import Noise

    whole = AutoencoderKL(
        in_channels=1, out_channels=1, down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 16], layers_per_block=1, latent_channels=2, norm_num_groups=4,
    )  # fmt: skip
    whole.load_state_dict(group.weights(runs / "autoencoder-z1-a2-w1", "autoencoder"))
    source = open_source(Job.model_validate(group.job(spec("autoencoder", 0, 1, 1, root))).spec, root / "plain-autoencoder")
    rows = torch.arange(source.info.length)
    with torch.no_grad():
        z = whole.encode(source.batch(rows, 0, Noise.of(0, 0, "other", rows))["image"]).latent_dist.sample(torch.Generator().manual_seed(0))
    assert found["autoencoder-z1-a2-w1"] == pytest.approx(1.0 / float(z.std()), rel=0.01)


def test_diffusers_loads_an_export_and_gives_the_same_pixels(runs: Path, root: Path) -> None:
    from diffusers import AutoencoderKL

    from trainjobs.api.vae import VaeNetwork
    from trainjobs.checkpoints import locate
    from trainjobs.export.export import export
    from trainjobs.models.autoencoder_kl import Autoencoder

    checkpoints, commit = locate(f"file://{runs}/autoencoder-z1-a2-w1/checkpoints")
    export(checkpoints, commit, root / "export", weights=None, dtype="fp32")
    whole, loading = AutoencoderKL.from_pretrained(root / "export", output_loading_info=True)
    assert not any(loading.values())
    assert whole.config.scaling_factor == pytest.approx(scale(runs / "autoencoder-z1-a2-w1"), rel=1e-12)
    ours = Autoencoder(VaeNetwork.model_validate(KL), channels=1, size=8)
    ours.load_state_dict(group.weights(runs / "autoencoder-z1-a2-w1", "autoencoder"))
    x = torch.rand(5, 1, 8, 8) * 2 - 1
    with torch.no_grad():
        rebuilt, mean, logvar = ours(torch.zeros(5, 32), x)
        posterior = whole.encode(x).latent_dist
        torch.testing.assert_close(rebuilt, whole.decode(posterior.mode()).sample, rtol=0, atol=2e-6)
    torch.testing.assert_close(mean, posterior.mean.flatten(1), rtol=0, atol=2e-6)
    torch.testing.assert_close(logvar, posterior.logvar.flatten(1), rtol=0, atol=2e-6)


def test_one_of_ours_is_named_by_its_run_its_checkpoint_or_its_export(runs: Path, root: Path, tmp_path: Path) -> None:
    from trainjobs.api.errors import JobError
    from trainjobs.checkpoints import locate
    from trainjobs.data.places.place import ALONE
    from trainjobs.export.companion import opened
    from trainjobs.export.export import export

    run = f"file://{runs}/autoencoder-z0-a1-w1"
    checkpoints, commit = locate(f"{run}/checkpoints")
    export(checkpoints, commit, tmp_path / "export", weights=None, dtype="fp32")
    uris = (run, f"{run}/checkpoints", checkpoints.uri(commit), f"file://{tmp_path}/export")
    found = [opened(uri, tmp_path / "cache", ALONE) for uri in uris]
    assert len({one.digest for one in found}) == 1
    assert [one.uri for one in found] == [checkpoints.uri(commit)] * 3 + [uris[3]]
    with pytest.raises(JobError, match="no autoencoder-kl") as refused:
        opened(f"file://{runs}/kept-z0-a1-w1", tmp_path / "cache", ALONE)
    assert refused.value.code == "GTJ0109"


def test_an_export_of_a_denoiser_has_its_autoencoder_and_draws_what_the_run_drew(runs: Path, tmp_path: Path) -> None:
    from trainjobs.checkpoints import locate
    from trainjobs.evaluate.pictures import save_samples
    from trainjobs.export.companion import whole
    from trainjobs.sampling.draw import drawn
    from trainjobs.sampling.opened import opened

    checkpoints, commit = locate(f"file://{runs}/kept-z0-a1-w1/checkpoints")
    whole(checkpoints, commit, tmp_path / "export", weights=None, dtype="fp32")
    assert {path.name for path in (tmp_path / "export" / "vae").iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    cpu = torch.device("cpu")
    found = opened(tmp_path / "export", "here", None, cpu)
    made = drawn(found, 4, found.spec.training.seed, [], cpu).samples
    assert made.images is not None
    assert made.images.shape == (4, 1, 8, 8)
    save_samples(made, tmp_path / "drawn")
    assert (tmp_path / "drawn.png").read_bytes() == (runs / "kept-z0-a1-w1" / "samples" / f"step-{STEPS:06}.png").read_bytes()


def scale(run: Path) -> float:
    """Of the last commit."""
    records = [json.loads(path.read_text()) for path in sorted((run / "checkpoints" / "log").glob("*.json"))]
    return float(_find([commit(run), *records], "scaling_factor")[-1])


def _find(value: Any, name: str) -> list[Any]:
    if isinstance(value, dict):
        return [inner for key, inner in value.items() if key == name] + [one for inner in value.values() for one in _find(inner, name)]
    return [one for inner in value for one in _find(inner, name)] if isinstance(value, list) else []


def test_resumes_to_the_last_bit_and_elsewhere_to_rounding(root: Path) -> None:
    job, whole = spec("kept", 0, 2, 1, root / "whole", steps=4), root / "resume-whole"
    parts, other = root / "resume-parts", root / "resume-other"
    group.run_group(
        1, [str(group.prepare(whole, job)), f"{group.prepare(parts, job)}=2", str(parts), f"{group.prepare(other, job)}=2"], root
    )
    (other / "job.json").write_text(json.dumps(group.job(spec("kept", 0, 1, 2, root / "whole", steps=4) | {"training": {
        **job["training"], "batch": {"global": BATCH, "micro": BATCH // 2}}})))  # fmt: skip
    group.run_group(2, [str(other)], root)
    expected, ours, elsewhere = (group.weights(run, "denoiser") for run in (whole, parts, other))
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    for key in expected:
        torch.testing.assert_close(elsewhere[key], expected[key], rtol=0, atol=1e-6)


def test_another_autoencoder_is_refused_on_resume(root: Path) -> None:
    run, job = root / "replaced", spec("kept", 0, 1, 1, root / "whole", steps=4)
    group.run_group(1, [f"{group.prepare(run, job)}=2"], root)
    job["diffusion"]["latents"]["autoencoder"] = f"file://{root / 'other'}"
    group.prepare(run, job)
    with pytest.raises(AssertionError, match="GTJ0208 the autoencoder is another one than the checkpoint's") as refused:
        group.run_group(1, [str(run)], root)
    assert "diffusion_pytorch_model.safetensors differs" in str(refused.value)
