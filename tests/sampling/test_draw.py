"""What `gtj sample` draws is what the run's own evaluations drew, from wherever the weights come."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "equivalence"))

import group

from trainjobs.checkpoints import locate
from trainjobs.cli.main import status
from trainjobs.export.export import export
from trainjobs.noise import Noise

pytestmark = pytest.mark.slow

UNET = {"network": {"channels": 8, "multipliers": [1, 2]}, "process": {"prediction": "v"}, "sampler": {"steps": 3}}
SHAPES = {"source": "builtin:shapes", "images": {"size": 8}, "holdout": 0.01}
TEXT = {"type": "text", "length": 24, "width": 16, "layers": 1, "heads": 2}
GAN = {"generator": {"channels": 8, "latentDim": 4}, "discriminator": {"channels": 8}}
MLP = {"generator": {"architecture": "mlp", "channels": 8}, "discriminator": {"architecture": "mlp", "channels": 8}}
DIGITS = {"source": "builtin:digits", "images": {"size": 16, "channels": 1}}
STYLED = {"architecture": "stylegan2", "channels": 2}
STYLES = {"generator": {**STYLED, "latentDim": 4, "mappingLayers": 2, "truncation": 0.5}, "discriminator": STYLED, "conditional": True}
PGGAN = {"architecture": "pggan", "channels": 2}
GROWING = {
    "generator": {**PGGAN, "latentDim": 4},
    "discriminator": PGGAN,
    "progressive": {"fadeImages": 16, "stableImages": 8},
}  # amid a fade
LANGUAGE = {"network": {"layers": 1, "hidden": 16, "heads": 2, "contextLength": 24}}
BPE = {"type": "bpe", "vocabularySize": 300}
PROMPTS = ["a red circle", "a blue square", "a green triangle"]


def spec(texts: Path) -> dict[str, dict[str, Any]]:
    read = {"source": f"file://{texts}"}
    return {
        "text": {"diffusion": {**UNET, "conditioning": TEXT, "sampler": {"steps": 3, "guidance": 2.0}}, "data": SHAPES,
                 "evaluation": {"prompts": PROMPTS}, "training": {"ema": {"decay": 0.5}}},
        "captions": {"diffusion": {**UNET, "conditioning": TEXT}, "data": SHAPES},
        "class": {"diffusion": {**UNET, "conditioning": {"type": "class"}}, "data": {**SHAPES, "source": "builtin:shapes"}},
        "vae": {"vae": {"network": {"channels": 8, "latentDim": 4}}, "data": SHAPES},
        "gan": {"gan": GAN, "data": SHAPES, "training": {"ema": {"decay": 0.5}}},
        "digits": {"gan": {**GAN, "conditional": True}, "data": DIGITS, "training": {"ema": {"decay": 0.5}}},
        "styles": {"gan": STYLES, "data": DIGITS, "training": {"ema": {"decay": 0.5}}},
        "grown": {"gan": GROWING, "data": DIGITS, "training": {"ema": {"decay": 0.5}}},
        "ring": {"gan": MLP, "data": {"source": "builtin:ring"}},
        "bytes": {"language": LANGUAGE, "data": read},
        "bpe": {"language": {**LANGUAGE, "tokenizer": BPE}, "data": read},
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sampling")
    texts = root / "texts"
    texts.mkdir()
    (texts / "all.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    folders = []
    for name, given in spec(texts).items():
        training = {"steps": 2, "batch": {"global": 8}, **given.get("training", {})}
        whole = {**given, "training": training, "compute": {"workers": 1, "gpusPerWorker": 0}}
        whole["evaluation"] = {"samples": 9, **given.get("evaluation", {})}
        folders.append(str(group.prepare(root / name, whole)))
    group.run_group(1, folders, root, script="at_once.py")
    return root


def sample(*arguments: object) -> int:
    return status(["sample", *map(str, arguments)])


@pytest.mark.parametrize("name", ["text", "captions", "class", "vae", "gan", "digits", "styles", "grown", "ring", "bytes", "bpe"])
def test_the_same_seed_gives_the_samples_of_the_runs_own_evaluation(name: str, runs: Path, tmp_path: Path) -> None:
    assert sample(runs / name, "--count", 9, "--out", tmp_path) == 0
    (own,) = (runs / name / "samples").glob("step-*")
    found = {"ring": "points.png", "bytes": "samples.txt", "bpe": "samples.txt"}.get(name, "grid.png")
    assert (tmp_path / found).read_bytes() == own.read_bytes()
    told = json.loads((tmp_path / "samples.json").read_text())
    assert len(told["drawn"]) == 9
    assert told["step"] == 2
    assert told["digest"].startswith("sha256:")
    assert told["weights"] == ("ema" if name in ("text", "gan", "digits", "styles", "grown") else "live")


@pytest.mark.parametrize("name", ["text", "class", "gan", "digits", "styles", "bpe"])
def test_a_checkpoint_and_an_export_draw_what_the_run_draws(name: str, runs: Path, tmp_path: Path) -> None:
    assert status(["checkpoints", "export", str(runs / name), str(tmp_path / "export")]) == 0
    folders = (runs / name, f"file://{runs / name / 'checkpoints'}", tmp_path / "export", f"file://{tmp_path / 'export'}")
    pictures = set()
    for number, place in enumerate(folders):
        assert sample(place, "--count", 4, "--seed", 7, "--out", tmp_path / str(number)) == 0
        pictures.add(b"".join(path.read_bytes() for path in sorted((tmp_path / str(number)).glob("000*"))))
    assert len(pictures) == 1


def test_plain_torch_draws_of_an_export_what_gtj_sample_draws(runs: Path, tmp_path: Path) -> None:
    """The average with its own batch norm statistics, in a network that is none of ours; with those of the live weights it draws others."""
    assert status(["checkpoints", "export", str(runs / "gan"), str(tmp_path / "export")]) == 0
    told = json.loads((tmp_path / "export" / "gentrain.json").read_text())
    assert (told["weights"], told["statistics"]) == ("ema", "average")
    plain = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(4, 8, 4, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1),
        torch.nn.Tanh(),
    )
    weights = load_file(tmp_path / "export" / "generator.safetensors")
    plain.load_state_dict({name.removeprefix("layers."): value for name, value in weights.items()})
    plain.eval()
    assert sample(tmp_path / "export", "--count", 4, "--out", tmp_path / "drawn") == 0
    z = Noise.of(0, 0, "samples", torch.arange(4)).normal("z", 4)
    with torch.no_grad():
        made = ((plain(z[:, :, None, None]).clamp(-1, 1) + 1) * 127.5).round()
    ours = torch.stack([torch.from_numpy(np.array(Image.open(tmp_path / "drawn" / f"000{n}.png"))).permute(2, 0, 1) for n in range(4)])
    assert (made - ours).abs().max() <= 1  # a rounding

    (checkpoints, commit), live = locate(f"file://{runs / 'gan' / 'checkpoints'}"), tmp_path / "live"
    export(checkpoints, commit, live, weights=None, dtype="fp32")
    before = load_file(live / "generator.safetensors")
    assert {name for name, value in before.items() if not torch.equal(value, weights[name])} == {
        "layers.1.running_mean",
        "layers.1.running_var",
    }


def test_a_sample_does_not_depend_on_what_is_drawn_with_it(runs: Path, tmp_path: Path) -> None:
    assert sample(runs / "text", "--prompt", "a red circle", "--count", 12, "--out", tmp_path / "many") == 0
    assert sample(runs / "text", "--prompt", "a red circle", "--count", 2, "--out", tmp_path / "few") == 0
    many, few = (Image.open(tmp_path / which / "0001.png").tobytes() for which in ("many", "few"))
    assert max(abs(a - b) for a, b in zip(many, few, strict=True)) <= 1


def test_prompts_of_a_file_and_what_was_made(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n\na cyan square\n")
    out = tmp_path / "out"
    assert sample(runs / "text", "--prompts", tmp_path / "prompts.txt", "--guidance", 4, "--steps", 2, "--out", out) == 0
    drawn = json.loads((out / "samples.json").read_text())["drawn"]
    assert [(one["prompt"], one["guidance"], one["steps"], one["file"]) for one in drawn] == [
        ("a red circle", 4.0, 2, "0000.png"),
        ("a cyan square", 4.0, 2, "0001.png"),
    ]
    assert Image.open(out / "0000.png").size == (8, 8)


def test_classes_by_name_and_number(runs: Path, tmp_path: Path) -> None:
    assert sample(runs / "class", "--label", "square", "--label", "1", "--seed", 3, "--out", tmp_path) == 0
    drawn = json.loads((tmp_path / "samples.json").read_text())["drawn"]
    assert [one["prompt"] for one in drawn] == ["square", "1"]


@pytest.mark.parametrize("name", ["digits", "styles"])
def test_a_gan_s_pictures_are_of_one_class_after_the_other_and_a_label_draws_one(name: str, runs: Path, tmp_path: Path) -> None:
    assert sample(runs / name, "--count", 12, "--out", tmp_path / "all") == 0
    drawn = json.loads((tmp_path / "all" / "samples.json").read_text())["drawn"]
    assert [one["prompt"] for one in drawn] == [*"012345678901"]
    assert sample(runs / name, "--label", "3", "--count", 4, "--out", tmp_path / "three") == 0
    whole, threes = ([Image.open(tmp_path / which / f"{n:04}.png").tobytes() for n in range(4)] for which in ("all", "three"))
    assert [whole[3] == three for three in threes] == [True, False, False, False]  # in its row, the first: a column has one noise


@pytest.mark.parametrize("name", ["gan", "vae", "digits", "styles", "grown"])
def test_what_lies_between_two_samples_is_on_the_run_s_own_sheet(name: str, runs: Path, tmp_path: Path) -> None:
    assert sample(runs / name, "--count", 5, "--interpolate", "--out", tmp_path) == 0
    assert (tmp_path / "grid.png").read_bytes() == (runs / name / "samples" / "between-000002.png").read_bytes()


@pytest.mark.parametrize("name", ["text", "captions", "class", "ring", "bytes"])
def test_a_model_without_latents_has_no_such_sheet(name: str, runs: Path) -> None:
    assert not [*(runs / name / "samples").glob("between-*")]


@pytest.mark.parametrize("name", ["gan", "vae", "text", "ring"])
def test_in_between_two_samples_lie_others_on_the_way(name: str, runs: Path, tmp_path: Path) -> None:
    assert sample(runs / name, "--count", 2, "--interpolate", "--out", tmp_path) == 0
    drawn = json.loads((tmp_path / "samples.json").read_text())["drawn"]
    assert [one["sample"] for one in drawn] == [0, *(round(k / 7, 6) for k in range(1, 7)), 1]
    if name == "gan":
        assert sample(runs / name, "--count", 2, "--out", tmp_path / "ends") == 0
        ends = [Image.open(tmp_path / "ends" / f"000{n}.png").tobytes() for n in (0, 1)]
        assert [Image.open(tmp_path / f"000{n}.png").tobytes() for n in (0, 7)] == ends


@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_a_language_model_goes_on_from_a_prompt(name: str, runs: Path, tmp_path: Path) -> None:
    for out in ("one", "two"):
        assert sample(runs / name, "--prompt", "the quick", "--prompt", "a dog", "--count", 4, "--out", tmp_path / out) == 0
    texts = [(tmp_path / "one" / f"000{n}.txt").read_text() for n in range(4)]
    assert texts == [(tmp_path / "two" / f"000{n}.txt").read_text() for n in range(4)]
    assert len(set(texts)) > 1


REFUSED = {
    "prompt for nothing": ("gan", ["--prompt", "x"], "draws for nothing"),
    "label of a text": ("text", ["--label", "x"], "has no classes"),
    "no such class": ("class", ["--label", "squares"], "did you mean"),
    "too long": ("text", ["--prompt", "x" * 30], "longer than 24 bytes"),
    "no room for an answer": ("bytes", ["--prompt", "x" * 30], "leaves no room"),
    "guidance of a gan": ("gan", ["--guidance", "3"], "has no sampler"),
    "guidance without a condition": ("text", ["--guidance", "-1"], "--guidance cannot be that"),
    "too many steps": ("captions", ["--steps", "5000"], "--steps cannot be that"),
    "between texts": ("bytes", ["--interpolate"], "nothing between two texts"),
    "no run": ("tex", [], "no run called"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_told(case: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, arguments, words = REFUSED[case]
    assert sample(runs / name, *arguments, "--out", tmp_path / "out") not in (0, 1)
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_told(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["checkpoints", "export", str(runs / "vae"), str(tmp_path / "export")]) == 0
    (file,) = (tmp_path / "export").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-40])
    assert sample(tmp_path / "export", "--out", tmp_path / "out") not in (0, 1)
    assert "is damaged" in capsys.readouterr().err


def test_noise_in_between_stays_normal() -> None:
    from trainjobs.sampling.draw import Between

    rows = torch.arange(4000)
    made = Between(1, rows, rows + 5000, torch.full((4000,), 0.3)).normal("z", 2)
    assert float(made.std()) == pytest.approx(1.0, abs=0.03)
    assert float(made.mean()) == pytest.approx(0.0, abs=0.03)
