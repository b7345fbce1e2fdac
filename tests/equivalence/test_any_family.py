"""What any family can use, on two processes: against a plain torch loop, and stopped amid it and gone on, to the last bit."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

import group
import plain
import plain_gan
from safetensors.torch import save_file
from scaled import INITIAL, WINDOW
from test_resume import digests

from trainjobs.api.diffusion import Diffusion
from trainjobs.api.job import Job
from trainjobs.data import open_source
from trainjobs.models.unet import UNet
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build

pytestmark = pytest.mark.slow

STEPS, BATCH, WORKERS, THAW = 10, 8, 2, 5
DIGITS = {"source": "builtin:digits", "images": {"size": 8, "channels": 1}}
VAE = {"vae": {"network": {"channels": 4, "latentDim": 4}}, "data": DIGITS}
GPT = {
    "language": {"network": {"layers": 2, "hidden": 16, "heads": 2, "contextLength": 16, "dropout": 0.1}},
    "data": {"source": "builtin:stdlib-text"},
}
UNET = {"diffusion": {"network": {"channels": 8}, "sampler": {"steps": 2}}, "data": DIGITS}
HINTS = ["denoiser.middle.0", "denoiser.up.0", "denoiser.up.4.res*l"]  # the teacher's of these names are as wide
HALVED = {"diffusion": {"network": {"channels": 8}, "process": {"prediction": "v"}, "sampler": {"steps": 2}}, "data": DIGITS}
SMALL = {**UNET, "data": {**DIGITS, "curriculum": {"by": "resolution", "size": 4, "steps": 5}}}
GAN = {
    "gan": {
        "generator": {"architecture": "mlp", "channels": 8, "layers": 2, "latentDim": 4, "normalization": "batch"},
        "discriminator": {"architecture": "mlp", "channels": 8, "layers": 2},
        "loss": {"type": "bce"},
    },
    "data": {"source": "builtin:ring"},
}
ADAMW = {"optimizers": {"default": {"name": "adamw", "learningRate": 0.01, "weightDecay": 0.1}}}
SGD = {"optimizers": {"default": {"name": "sgd", "learningRate": 1e-4, "momentum": 0.9}}}
FAST = {"optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}}}
FROZEN = {
    "freeze": ["autoencoder.encoder", "autoencoder.decoder.*.bias"],
    "unfreeze": [{"step": THAW, "patterns": ["autoencoder.encoder.*"]}],
}
NO_BETTER = {"threshold": 0.5, "factor": 0.5}  # no evaluation is better by half
EARLY = {"earlyStopping": {"patience": 3, "minDelta": 1e6}}


def stages(*some: int) -> tuple[int, ...]:
    """These, which bring out what the others would; all with GENTRAIN_ALL_STAGES."""
    return (0, 1, 2, 3) if "GENTRAIN_ALL_STAGES" in os.environ else some


# name: (family, training, stage, step after which it is stopped)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    **{f"fp16-z{stage}": (VAE, {"precision": "fp16", **SGD, "gradientClipping": 100.0}, stage, 6) for stage in (0, 1, 2, 3)},
    **{f"unfreeze-z{stage}": (VAE, {**ADAMW, **FROZEN}, stage, 3) for stage in stages(0, 3)},
    "unfrozen-z2": (VAE, {**ADAMW, **FROZEN}, 2, THAW + 2),
    "plateau-z0": (VAE, {**ADAMW, "schedule": {"name": "plateau", "warmupSteps": 3, "patience": 2, "cooldown": 1, **NO_BETTER}}, 0, 5),
    "muon-z0": (GPT, {"optimizers": {"model": {"name": "muon", "learningRate": 0.01}}}, 0, 4),
    **{f"sparse-z{stage}": (VAE, {**ADAMW, "sparsity": {"weights": 1.0, "activations": 0.5, "layers": ["autoencoder.encoder.layers.*"]}},
                            stage, 4) for stage in stages(0, 3)},
    **{f"taught-z{stage}": (UNET, {**FAST, "distillation": {"teacher": "", "weight": 0.75}}, stage, 4) for stage in (0, 3)},
    **{f"hinted-z{stage}": (UNET, {**FAST, "distillation": {"teacher": "", "weight": 0.75, "features": HINTS}}, stage, 4)
       for stage in (0, 3)},
    **{f"halved-z{stage}": (HALVED, {**FAST, "distillation": {"teacher": "", "progressive": True}}, stage, 4) for stage in (0, 3)},
    "small-z2": (SMALL, FAST, 2, 3),
    "sync-z1": (GAN, {"optimizers": {"default": {"name": "sgd", "learningRate": 0.05}}, "syncBatchNorm": True}, 1, 4),
    "early-z1": (VAE, {**ADAMW, **EARLY}, 1, 2),
    **{f"again-{name}-z{stage}": (family, {**ADAMW, "gradientCheckpointing": True}, stage, 0)
       for name, family in (("gpt", GPT), ("unet", UNET)) for stage in stages(0, 3)},
    **{f"kept-{name}-z{stage}": (family, ADAMW, stage, 0) for name, family in (("gpt", GPT), ("unet", UNET)) for stage in stages(0, 3)},
}  # fmt: skip


# Amid a window of the loss scale from so many ranks to so many, in the same micro-batches.
# From stage 1 on DeepSpeed adds gradients up in fp16, in another order at each number of ranks.
MOVED = {"fp16-z0": ((1, 2), (2, 1))}


def spec(name: str, root: Path = Path("/"), workers: int = WORKERS) -> dict[str, Any]:
    """`root` holds the teacher."""
    family, training, stage, stop = copy.deepcopy(CASES[name])
    if "distillation" in training:
        training["distillation"]["teacher"] = f"file://{root}/teacher{'-v' if training['distillation'].get('progressive') else ''}"
    return {
        **family,
        "training": {
            "steps": STEPS if stop else 3,
            "batch": {"global": BATCH, "micro": BATCH // WORKERS},
            "ema": {"decay": 0.9},
            **training,
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}},
        "evaluation": {"samples": 1, "everySteps": 1 if name.startswith(("plateau", "early")) else STEPS},
    }


RESUMED = [name for name, case in CASES.items() if case[3]]


LARGER = {"channels": 8, "blocks": 2}


def teacher() -> UNet:
    torch.manual_seed(5)
    network = UNet(image_channels=1, channels=8, multipliers=[1, 2], blocks=2, attention=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.requires_grad_(False).eval()


def export_teacher(folder: Path, prediction: str = "epsilon") -> None:
    """As `gtj checkpoints export` leaves it."""
    folder.mkdir()
    family = Diffusion.model_validate({"network": LARGER, "process": {"prediction": prediction}}).model_dump(mode="json", by_alias=True)
    (folder / "gentrain.json").write_text(json.dumps({"family": "diffusion", "spec": {"diffusion": family}}))
    save_file(teacher().state_dict(), folder / "denoiser.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("any")
    export_teacher(root / "teacher")
    export_teacher(root / "teacher-v", "v")
    whole = [str(group.prepare(root / name, spec(name, root))) for name in CASES]
    halves = [str(group.prepare(root / f"{name}-resumed", spec(name, root))) for name in RESUMED]
    stopped = [f"{run}={CASES[name][3]}" for run, name in zip(halves, RESUMED, strict=True)]
    again = [str(root / "early-z1-resumed")]  # a run that has ended goes on to nothing
    moved = {(name, *way): root / f"{name}-{way[0]}-{way[1]}" for name, ways in MOVED.items() for way in ways}

    def begun(size: int) -> list[str]:
        return [
            f"{group.prepare(run, spec(name, root, size))}={CASES[name][3]}" for (name, first, _), run in moved.items() if first == size
        ]

    def went_on(size: int) -> list[str]:
        return [str(group.prepare(run, spec(name, root, size))) for (name, _, last), run in moved.items() if last == size]

    group.run_group(1, begun(1), root, script="scaled.py")
    group.run_group(WORKERS, [*whole, *stopped, *halves, *again, *went_on(2), *begun(2)], root, script="scaled.py")
    group.run_group(1, went_on(1), root, script="scaled.py")
    return root


def rows(run: Path, *names: str) -> list[tuple[float, ...]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [tuple(row[name] for name in names) for row in found if names[0] in row]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for line in (run / "attempts.jsonl").read_text().splitlines() if (event := json.loads(line))["event"] == kind]


@pytest.mark.parametrize("name", RESUMED)
def test_goes_on_to_the_last_bit(name: str, runs: Path) -> None:
    whole, resumed = runs / name, runs / f"{name}-resumed"
    assert events(resumed, "resumed")[0]["step"] == CASES[name][3]
    expected, ours = digests(whole), digests(resumed)
    assert [key for key in expected if "ema/" in key]
    assert {key for key in expected | ours if expected.get(key) != ours.get(key)} == set()
    loss = "loss/G" if name.startswith("sync") else "loss"
    assert rows(resumed, loss) == rows(whole, loss)
    assert rows(whole, loss)


class Plain:
    """The loop by hand: two ranks' halves of each batch one after the other, their gradients added up, torch.optim."""

    def __init__(self, name: str, cache: Path) -> None:
        self.spec = Job.model_validate(group.job(spec(name))).spec
        self.source = open_source(self.spec, cache)
        torch.manual_seed(mix(0, "weights"))
        torch.set_num_threads(1)
        ((self.name, self.network),) = build(self.spec, self.source.info).modules.items()

    def losses(self, step: int) -> list[Tensor]:
        """Of each rank, a function to be called for its loss."""
        found = []
        for rank in range(WORKERS):
            samples = torch.arange(step * BATCH + rank * BATCH // WORKERS, step * BATCH + (rank + 1) * BATCH // WORKERS)
            noise = Noise.of(0, step, "train.0", samples)
            found.append(plain.vae_loss(self.spec, self.network, dict(self.source.batch(samples, 0, noise)), noise))
        return found

    def differs(self, run: Path) -> float:
        ours = group.weights(run, self.name)
        return max(float((ours[path] - parameter).abs().max()) for path, parameter in self.network.named_parameters())


def test_fp16_is_autocast_and_torchs_scaler(runs: Path, tmp_path: Path) -> None:
    """Weights, scale and skipped steps at stage 0."""
    loop = Plain("fp16-z0", tmp_path)
    optimizer = torch.optim.SGD(loop.network.parameters(), lr=1e-4, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=INITIAL, growth_interval=WINDOW)
    told = []
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            losses = loop.losses(step)
        for loss in losses:
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for parameter in loop.network.parameters():  # the mean over the ranks, as DistributedDataParallel has it
            assert parameter.grad is not None
            parameter.grad /= WORKERS
        nn.utils.clip_grad_norm_(loop.network.parameters(), 100.0)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        told.append((scaler.get_scale(), float(scaler.get_scale() < before)))
    assert rows(runs / "fp16-z0", "loss_scale/autoencoder", "skipped/autoencoder") == told
    assert 0 < sum(skipped for _, skipped in told) < STEPS - 3
    assert max(scale for scale, _ in told[1:]) > min(scale for scale, _ in told)
    difference = loop.differs(runs / "fp16-z0")
    print(f"fp16 at stage 0: {difference:.1e}")
    assert difference <= 1e-6


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_fp16_weights_of_deepspeed_learn_the_same(stage: int, runs: Path) -> None:
    """From stage 1 on weights themselves are fp16, so numbers differ in their fourth digit; the scale's rule is the same."""
    ours, theirs = runs / f"fp16-z{stage}", runs / "fp16-z0"
    scales = rows(ours, "loss_scale/autoencoder", "skipped/autoencoder")
    scale, good = INITIAL, 0
    for told, skipped in scales:
        good = 0 if skipped else good + 1
        scale = scale / 2 if skipped else scale * 2 if good == WINDOW else scale
        good %= WINDOW
        assert told == scale
    assert 0 < sum(skipped for _, skipped in scales) < STEPS - 3
    assert rows(ours, "loss")[0][0] == pytest.approx(rows(theirs, "loss")[0][0], rel=2e-3)
    assert rows(ours, "loss")[-1][0] == pytest.approx(rows(theirs, "loss")[-1][0], rel=2e-2)
    assert not events(ours, "rolled back")


@pytest.mark.parametrize("case", [(name, *way) for name, ways in MOVED.items() for way in ways], ids=lambda case: "-".join(map(str, case)))
def test_fp16_goes_on_amid_a_window_of_its_scale_at_another_number_of_ranks(case: tuple[str, int, int], runs: Path) -> None:
    name, first, last = case
    whole, ours = runs / name, runs / f"{name}-{first}-{last}"
    (went_on,) = events(ours, "resumed")
    assert went_on["step"] == CASES[name][3]
    assert f"{last} worker" in went_on["message"]
    scales = rows(ours, "loss_scale/autoencoder", "skipped/autoencoder")
    assert scales == rows(whole, "loss_scale/autoencoder", "skipped/autoencoder")
    stop = CASES[name][3]
    assert 0 < kept_at(ours, stop)["good"] < WINDOW, "it stopped amid a window"
    assert [scale for scale, _ in scales[stop:]] != [scales[stop - 1][0]] * (STEPS - stop), (
        "the window that had begun ended behind the stop"
    )
    difference = max(
        float((one[key] - other[key]).abs().max())
        for kind in ("fp32", "ema")
        for one, other in ((group.weights(ours, "autoencoder", kind), group.weights(whole, "autoencoder", kind)),)
        for key in other
    )
    print(f"{name} from {first} to {last} ranks: {difference:.1e}")
    assert difference <= 1e-6


def kept_at(run: Path, step: int) -> dict[str, Any]:
    """What the commit of a step keeps of the scale."""
    records = [json.loads(path.read_text()) for path in (run / "checkpoints" / "log").glob("*.json")]
    (body,) = [record["body"] for record in records if record["kind"] == "commit" and record["body"]["step"] == step]
    kept: dict[str, Any] = body["metadata"]["scale/autoencoder"]
    return kept


def test_a_commit_has_the_scale_amid_its_window(runs: Path) -> None:
    record = json.loads((max((runs / "fp16-z0-resumed" / "checkpoints" / "log").glob("*.json"))).read_text())
    kept = record["body"]["metadata"]["scale/autoencoder"]
    assert kept["scale"] == rows(runs / "fp16-z0", "loss_scale/autoencoder")[-1][0]
    assert kept["skipped"] == sum(row[0] for row in rows(runs / "fp16-z0", "skipped/autoencoder"))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("unfreeze", "unfrozen"))])
def test_frozen_parameters_stay_and_thaw_with_a_new_optimizer(name: str, runs: Path, tmp_path: Path) -> None:
    loop = Plain(name, tmp_path)
    named = dict(loop.network.named_parameters())
    start = {path: parameter.detach().clone() for path, parameter in named.items()}
    never = [path for path in named if path.startswith("decoder.") and path.endswith(".bias")]
    later = [path for path in named if path.startswith("encoder.")]
    first = [path for path in named if path not in (*never, *later)]
    assert never
    assert later
    optimizers = [torch.optim.AdamW([named[path] for path in first], lr=0.01, weight_decay=0.1)]
    for step in range(STEPS):
        if step == THAW:
            optimizers.append(torch.optim.AdamW([named[path] for path in later], lr=0.01, weight_decay=0.1))
        for path, parameter in named.items():
            parameter.requires_grad_(path in first or (step >= THAW and path in later))
            parameter.grad = None
        for loss in loop.losses(step):
            (loss / WORKERS).backward()
        for optimizer in optimizers:
            optimizer.step()
    difference = loop.differs(runs / name)
    print(f"{name}: {difference:.1e}")
    assert difference <= 1e-5
    ours = group.weights(runs / name, loop.name)
    assert all(torch.equal(ours[path], start[path]) for path in never)
    assert all(not torch.equal(ours[path], start[path]) for path in later)


def test_a_plateau_multiplies_the_warm_up_as_torchs_scheduler(runs: Path) -> None:
    run = runs / "plateau-z0"
    rates, scores = rows(run, "lr/autoencoder"), rows(run, "heldout/loss")
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, cooldown=1, threshold=0.5, eps=0.0)
    for step, ((rate,), (score,)) in enumerate(zip(rates, scores, strict=True)):
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"] * min(1.0, (step + 1) / 3), rel=1e-12)
        scheduler.step(score)
    assert rates[-1][0] < 0.01 * 0.5 + 1e-12
    assert rows(runs / "plateau-z0-resumed", "lr/autoencoder") == rates
    assert "plateau" in events(run, "note")[0]["message"]


def test_early_stopping_succeeds_and_says_why(runs: Path) -> None:
    for run in (runs / "early-z1", runs / "early-z1-resumed"):
        progress = json.loads((run / "progress.json").read_text())
        assert progress["phase"] == "Succeeded"
        assert progress["message"].startswith("stopped early: heldout/loss was not better than")
        assert progress["step"] == progress["checkpoint"]["step"] == 4
        assert rows(run, "loss").__len__() == 4
    assert not events(runs / "early-z1-resumed", "stopped")[1:]


@pytest.mark.parametrize("name", [name.removeprefix("again-") for name in CASES if name.startswith("again")])
def test_blocks_computed_again_give_the_same_weights(name: str, runs: Path) -> None:
    expected, ours = digests(runs / f"kept-{name}"), digests(runs / f"again-{name}")
    assert expected == ours
    assert rows(runs / f"again-{name}", "loss") == rows(runs / f"kept-{name}", "loss")


def test_batch_norm_of_all_ranks_is_that_of_the_whole_batch(runs: Path, tmp_path: Path) -> None:
    """Weights and running statistics, against a plain loop over the whole batch with torch's own batch norm."""
    asked = spec("sync-z1")
    asked["training"]["syncBatchNorm"] = False
    networks, _ = plain_gan.train(group.job(asked), tmp_path)
    for name, network in networks.items():
        ours = group.weights(runs / "sync-z1", name)
        if name == "generator":
            ours |= group.weights(runs / "sync-z1", name, "buffer")
        theirs = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        assert any("running_var" in key for key in theirs) == (name == "generator")
        difference = max(float((ours[key].float() - value.float()).abs().max()) for key, value in theirs.items())
        print(f"batch norm over ranks, {name}: {difference:.1e}")
        assert difference <= 1e-6


@pytest.mark.parametrize("stage", stages(0, 3))
def test_sparse_weights_and_activations_are_those_of_a_plain_loop(stage: int, runs: Path, tmp_path: Path) -> None:
    loop = Plain(f"sparse-z{stage}", tmp_path)
    heard: list[Tensor] = []
    for layer in loop.network.get_submodule("encoder.layers").children():
        layer.register_forward_hook(lambda layer, arguments, output: heard.append(output))
    optimizer = torch.optim.AdamW(loop.network.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        samples = torch.arange(step * BATCH, (step + 1) * BATCH)
        noise = Noise.of(0, step, "train.0", samples)
        heard.clear()
        loss = plain.vae_loss(loop.spec, loop.network, dict(loop.source.batch(samples, 0, noise)), noise)
        (loss + 0.5 * sum(h.abs().mean() for h in heard) / len(heard)).backward()
        optimizer.step()
        for weight in loop.network.parameters():
            if weight.dim() > 1:
                weight.data = weight.data.sign() * (weight.data.abs() - 0.01).clamp(min=0)
    difference = loop.differs(runs / f"sparse-z{stage}")
    print(f"sparsity at stage {stage}: {difference:.1e}")
    assert difference <= 1e-5
    ours = group.weights(runs / f"sparse-z{stage}", loop.name)
    zeros = [float((value == 0).float().mean()) for value in ours.values() if value.dim() > 1]
    assert max(zeros) > 0.05
    assert not any(bool((value == 0).any()) for path, value in ours.items() if path.endswith("bias"))


@pytest.mark.parametrize("stage", [0, 3])
def test_a_pupil_learns_what_a_plain_loop_teaches(stage: int, runs: Path, tmp_path: Path) -> None:
    loop, master = Plain(f"taught-z{stage}", tmp_path), teacher()
    calls: list[tuple[Any, Tensor]] = []
    loop.network.register_forward_hook(lambda network, arguments, output: calls.append((arguments, output)))
    optimizer = torch.optim.SGD(loop.network.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        for rank in range(WORKERS):
            samples = torch.arange(step * BATCH + rank * BATCH // WORKERS, step * BATCH + (rank + 1) * BATCH // WORKERS)
            noise = Noise.of(0, step, "train.0", samples)
            calls.clear()
            own = plain.diffusion_loss(loop.spec, loop.network, dict(loop.source.batch(samples, 0, noise)), noise)
            ((arguments, output),) = calls
            ((0.25 * own + 0.75 * ((output - master(*arguments)) ** 2).mean()) / WORKERS).backward()
        optimizer.step()
    difference = loop.differs(runs / f"taught-z{stage}")
    print(f"distillation at stage {stage}: {difference:.1e}")
    assert difference <= 1e-6
    commit = json.loads(max((runs / f"taught-z{stage}" / "checkpoints" / "log").glob("*.json")).read_text())["body"]
    assert commit["metadata"]["frozen"].startswith("sha256:")
    assert not list(group.last_commit(runs / f"taught-z{stage}").glob("rank-*/teacher*"))


@pytest.mark.parametrize("stage", [0, 3])
def test_a_pupil_learns_what_its_teachers_layers_say(stage: int, runs: Path, tmp_path: Path) -> None:
    """Of the blocks that both have, with hooks of torch's own on either."""
    loop, master = Plain(f"hinted-z{stage}", tmp_path), teacher()
    layers = [path for path, _ in loop.network.named_modules() if path in ("middle.0", "up.0", "up.4.residual")]
    assert len(layers) == 3
    heard: dict[tuple[str, str], Tensor] = {}
    for who, network in (("ours", loop.network), ("theirs", master)):
        for path in layers:
            network.get_submodule(path).register_forward_hook(
                lambda layer, arguments, output, key=(who, path): heard.__setitem__(key, output)
            )
    calls: list[tuple[Any, Tensor]] = []
    loop.network.register_forward_hook(lambda network, arguments, output: calls.append((arguments, output)))
    optimizer = torch.optim.SGD(loop.network.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        for rank in range(WORKERS):
            samples = torch.arange(step * BATCH + rank * BATCH // WORKERS, step * BATCH + (rank + 1) * BATCH // WORKERS)
            noise = Noise.of(0, step, "train.0", samples)
            calls.clear()
            own = plain.diffusion_loss(loop.spec, loop.network, dict(loop.source.batch(samples, 0, noise)), noise)
            ((arguments, output),) = calls
            term = ((output - master(*arguments)) ** 2).mean()
            hints = sum(((heard["ours", path] - heard["theirs", path]) ** 2).mean() for path in layers) / len(layers)
            ((0.25 * own + 0.75 * (term + hints)) / WORKERS).backward()
        optimizer.step()
    difference = loop.differs(runs / f"hinted-z{stage}")
    print(f"distillation of layers at stage {stage}: {difference:.1e}")
    assert difference <= 1e-6
    assert rows(runs / f"hinted-z{stage}", "distillation/features")


@pytest.mark.parametrize("stage", [0, 3])
def test_a_sampler_is_halved_as_a_plain_loop_halves_it(stage: int, runs: Path, tmp_path: Path) -> None:
    """diffusers' DDIM takes the teacher's two steps, row by row: test_diffusion_progressive.py has the same against our sampler."""
    from diffusers import DDIMScheduler

    loop, master = Plain(f"halved-z{stage}", tmp_path), teacher()
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    alphas = scheduler.alphas_cumprod
    optimizer = torch.optim.SGD(loop.network.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        samples = torch.arange(step * BATCH, (step + 1) * BATCH)
        noise = Noise.of(0, step, "train.0", samples)
        x, eps = loop.source.batch(samples, 0, noise)["image"], noise.normal("epsilon", 1, 8, 8)
        for row, number in enumerate(noise.integers("step", 2, 1)[:, 0].tolist()):
            t, middle = (int(scheduler.timesteps[2 * number + offset]) for offset in (0, 1))
            z = start = scheduler.add_noise(x[row : row + 1], eps[row : row + 1], torch.tensor([t]))
            for time in (t, middle):
                z = scheduler.step(master(z, torch.tensor([time])), time, z, use_clipped_model_output=True).prev_sample
            a, s = alphas[t] ** 0.5, (1 - alphas[t]) ** 0.5
            last = torch.tensor(1.0) if number else alphas[int(scheduler.timesteps[2])]
            ratio = (1 - last) ** 0.5 / s
            wanted = (z - ratio * start) / (last**0.5 - ratio * a)
            found = a * start - s * loop.network(start, torch.tensor([t]))
            (max(float(a**2 / s**2), 1.0) * ((wanted - found) ** 2).mean() / BATCH).backward()
        optimizer.step()
    difference = loop.differs(runs / f"halved-z{stage}")
    print(f"progressive distillation at stage {stage}: {difference:.1e}")
    assert difference <= 1e-5


def test_pictures_that_begin_small_are_learned_as_a_plain_loop_learns_them(runs: Path, tmp_path: Path) -> None:
    loop = Plain("small-z2", tmp_path)
    optimizer = torch.optim.SGD(loop.network.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        optimizer.zero_grad()
        samples = torch.arange(step * BATCH, (step + 1) * BATCH)
        noise = Noise.of(0, step, "train.0", samples)
        image = loop.source.batch(samples, 0, noise)["image"]
        image = nn.functional.avg_pool2d(image, 2) if step < 5 else image
        plain.diffusion_loss(loop.spec, loop.network, {"image": image}, noise).backward()
        optimizer.step()
    difference = loop.differs(runs / "small-z2")
    print(f"pictures that begin small: {difference:.1e}")
    assert difference <= 1e-6
