"""What is trained of a pipeline follows plain torch over plain diffusers and peft at every ZeRO stage, and plain diffusers draws the same
pictures from what is exported of it. One group of processes of each size trains all of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import group
import pipelined

from tests.models.pipelines import saved
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import locate
from trainjobs.cli.main import status
from trainjobs.export.export import export
from trainjobs.noise import Noise
from trainjobs.sampling.draw import drawn
from trainjobs.sampling.opened import opened

pytestmark = pytest.mark.slow

STEPS, BATCH, SIZE = 4, 8, 8
LORA = {"type": "lora", "lora": {"rank": 2, "alpha": 3, "targetModules": ["to_k", "to_q", "to_v", "to_out.0"]}}
WORD = {"type": "textual-inversion", "textualInversion": {"placeholder": "<toy>", "initializer": "toy", "vectors": 2}}
BOOTH = {"instancePrompt": "a photo of thing toy", "classPrompt": "a photo of a toy", "classImages": 6, "priorLossWeight": 0.5}
# By name: the pipeline, what is trained of it, and what else is in diffusion.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "full": ("sd", {"type": "full"}, {"conditioning": {"type": "text", "dropout": 0.3}}),
    "full-text": ("v", {"type": "full", "textEncoder": True}, {"process": {"minSnrGamma": 5.0}}),
    "lora": ("sd", LORA, {}),
    "lora-text": ("sd", {**LORA, "textEncoder": True}, {}),
    "dora": ("sd", {**LORA, "lora": {"rank": 2, "useDora": True}}, {}),
    "word": ("sd", WORD, {}),
    "booth": ("sd", {**LORA, "dreambooth": BOOTH}, {}),
    "xl": ("xl", {**LORA, "textEncoder": True}, {"conditioning": {"type": "text", "dropout": 0.3}}),
    "xl-word": ("xl", WORD, {}),
    "sd3": ("sd3", LORA, {}),
    "sd3-full": ("sd3", {"type": "full"}, {}),
    "sd3-t5": ("sd3-t5", LORA, {"conditioning": {"type": "text", "dropout": 0.3}}),
    "sd3-t5-word": ("sd3-t5", WORD, {}),
}
# Workers, stage, accumulation. Of every kind of change each stage, one and two workers, and accumulation; GENTRAIN_ALL_STAGES for more.
MORE = "GENTRAIN_ALL_STAGES" in os.environ
WAYS: dict[str, tuple[tuple[int, int, int], ...]] = {
    **dict.fromkeys(CASES, ((1, 0, 2), (2, 3, 1)) if MORE else ((2, 3, 1),)),
    **dict.fromkeys(("lora-text", "xl", "sd3"), ((1, 0, 2), (2, 3, 1))),
    "lora": ((1, 0, 1), *([(1, 3, 2)] if MORE else []), (2, 0, 2), (2, 1, 1), (2, 2, 2), (2, 3, 1)),
    "word": ((1, 0, 1), *([(2, 0, 2)] if MORE else []), (2, 2, 1), (2, 3, 2)),
    "booth": ((1, 0, 1), *([(2, 0, 2)] if MORE else []), (2, 1, 1), (2, 3, 1)),
    "full": ((1, 0, 1), (2, 1, 2), (2, 2, 1), (2, 3, 2)),
}
EVERY = [(name, *way) for name, ways in WAYS.items() for way in ways]


def spec(name: str, root: Path, workers: int = 1, stage: int = 0, accumulation: int = 1) -> dict[str, Any]:
    kind, adapt, more = CASES[name]
    return {
        "diffusion": {
            "pretrained": {"source": f"file://{root / 'bases' / kind}"},
            "adapt": adapt,
            "sampler": {"steps": 4, "guidance": 3.0},
            **more,
        },
        "data": {"source": "builtin:shapes", "images": {"size": SIZE}, "holdout": 0.001},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": BATCH // (accumulation * workers)},
            "optimizers": {"default": {"name": "sgd", "learningRate": 0.05, "momentum": 0.9}},
            "ema": {"decay": 0.5},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": workers, "gpusPerWorker": 0},
        "evaluation": {"samples": 2, "everySteps": STEPS, "prompts": ["a red circle", "a blue square"]},
    }


def folder(root: Path, name: str, way: tuple[int, ...]) -> Path:
    return root / f"{name}-w{way[0]}-z{way[1]}-a{way[2]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pipelines")
    for kind in ("sd", "xl", "sd3", "sd3-t5"):
        saved(root / "bases" / kind, kind)
    saved(root / "bases" / "v", "sd", prediction="v_prediction")
    resumed = group.prepare(root / "lora-resumed", spec("lora", root, 2, 3))
    for size in (1, 2):
        runs = [str(group.prepare(folder(root, name, way), spec(name, root, *way))) for name, *way in EVERY if way[0] == size]
        group.run_group(size, [*runs, *([f"{resumed}=2"] if size == 2 else [])], root, script="at_once.py")
    group.run_group(1, [str(group.prepare(resumed, spec("lora", root)))], root, script="at_once.py")
    return root


@pytest.fixture(scope="module")
def plain(root: Path) -> Any:
    torch.set_num_threads(1)
    known: dict[str, dict[str, Tensor]] = {}

    def trained(name: str) -> dict[str, Tensor]:
        if name not in known:
            run = folder(root, name, WAYS[name][0])
            known[name] = pipelined.train(group.job(spec(name, root)), root / "bases" / CASES[name][0], run)
        return known[name]

    return trained


@pytest.mark.parametrize(("name", "workers", "stage", "accumulation"), EVERY)
def test_follows_plain_diffusers(root: Path, plain: Any, name: str, workers: int, stage: int, accumulation: int) -> None:
    theirs, ours = plain(name), group.weights(folder(root, name, (workers, stage, accumulation)), "denoiser")
    assert ours.keys() == theirs.keys()
    difference = max(float((ours[path] - theirs[path]).abs().max()) for path in theirs)
    print(f"{name} at {stage}, {workers} workers, accumulation {accumulation}: {difference:.1e}")
    assert difference < 1e-6


def test_goes_on_at_another_stage_and_number_of_workers(root: Path, plain: Any) -> None:
    theirs, ours = plain("lora"), group.weights(root / "lora-resumed", "denoiser")
    assert max(float((ours[path] - theirs[path]).abs().max()) for path in theirs) < 1e-6


def exported(root: Path, name: str, to: Path, **how: Any) -> Any:
    checkpoints, commit = locate(f"file://{folder(root, name, WAYS[name][-1]) / 'checkpoints'}")
    return export(checkpoints, commit, to, weights=how.pop("weights", "live"), dtype="fp32", **how)


def ours(source: Path, prompt: str, count: int = 2) -> Tensor:
    """What Gentrain draws from an export, with its own sampler."""
    found = opened(source, "here", None, torch.device("cpu"))
    images = drawn(found, count, 5, [prompt], torch.device("cpu")).samples.images
    assert images is not None
    return images


def theirs(pipe: Any, prompt: str, count: int = 2) -> Tensor:
    """What plain diffusers draws with its own scheduler, beginning with the same noise."""
    channels = (pipe.unet if hasattr(pipe, "unet") else pipe.transformer).config.in_channels
    start = Noise.of(5, 0, "samples", torch.arange(count)).normal("start", channels, SIZE // 2, SIZE // 2)
    pipe.set_progress_bar_config(disable=True)
    # A flow's own times end at 1/1000 before the shift, ours at the last of equal steps: Euler's method with ours.
    more = {"sigmas": [1.0, 0.75, 0.5, 0.25]} if hasattr(pipe, "transformer") else {}
    made = pipe(
        [prompt] * count, height=SIZE, width=SIZE, num_inference_steps=4, guidance_scale=3.0, latents=start, output_type="pt", **more
    )
    return torch.as_tensor(made.images) * 2.0 - 1.0


PROMPT = "a photo of a red <toy>"


@pytest.mark.parametrize("name", list(CASES))
def test_plain_diffusers_draws_the_same_pictures(root: Path, tmp_path: Path, name: str) -> None:
    base = pipelined.loaded(root / "bases" / CASES[name][0])
    before = theirs(base, PROMPT)
    done = exported(root, name, tmp_path / "out")
    assert done.pipeline
    kind = CASES[name][1]["type"]
    if kind == "full":
        pipe = pipelined.loaded(tmp_path / "out")
    elif kind == "lora":
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"gentrain.json", "pytorch_lora_weights.safetensors"}
        pipe = base
        pipe.load_lora_weights(tmp_path / "out")
    else:
        pipe = base
        load_word(pipe, tmp_path / "out")
    found, mine = theirs(pipe, PROMPT), ours(tmp_path / "out", PROMPT)
    difference = float((found - mine).abs().max())
    print(f"{name}: {difference:.1e}, training moved {float((found - before).abs().max()):.1e}")
    assert difference < 2e-5
    assert float((found - before).abs().max()) > 10 * difference


def load_word(pipe: Any, source: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(source / "learned_embeds.safetensors")
    if len(tensors) == 1:
        pipe.load_textual_inversion(source / "learned_embeds.safetensors")
        return
    if "t5xxl" in tensors:  # for which diffusers has no loader
        for key, part in zip(("clip_l", "clip_g", "t5xxl"), ("text_encoder", "text_encoder_2", "text_encoder_3"), strict=True):
            encoder, tokens = getattr(pipe, part), getattr(pipe, part.replace("text_encoder", "tokenizer"))
            count = len(tokens)
            tokens.add_tokens(["<toy>", "<toy>_1"])
            encoder.resize_token_embeddings(count + 2)
            with torch.no_grad():
                encoder.get_input_embeddings().weight[count:] = tensors[key]
        assert tensors.keys() == {"clip_l", "clip_g", "t5xxl"}
        whole = pipe.encode_prompt
        pipe.encode_prompt = lambda **told: whole(**{**told, **{name: spelled(told[name]) for name in ("prompt", "prompt_2", "prompt_3")}})
        return
    pipe.load_textual_inversion(tensors["clip_l"], token="<toy>", text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
    pipe.load_textual_inversion(tensors["clip_g"], token="<toy>", text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)


def spelled(texts: list[str] | None) -> list[str] | None:
    """With both rows of the word, as load_textual_inversion's own pipelines have it."""
    return texts and [text.replace("<toy>", "<toy> <toy>_1") for text in texts]


@pytest.mark.parametrize("name", ["lora", "lora-text", "dora", "xl"])
def test_a_merged_pipeline_draws_what_the_changes_beside_it_do(root: Path, tmp_path: Path, name: str) -> None:
    assert not exported(root, name, tmp_path / "merged", merge=True).adapter
    exported(root, name, tmp_path / "beside")
    merged = theirs(pipelined.loaded(tmp_path / "merged"), PROMPT)
    assert torch.allclose(merged, ours(tmp_path / "beside", PROMPT), atol=2e-5)
    assert torch.allclose(ours(tmp_path / "merged", PROMPT), merged, atol=2e-5)


@pytest.mark.parametrize("name", ["lora", "lora-text"])
def test_plain_diffusers_loads_kohya_s_keys(root: Path, tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file

    exported(root, name, tmp_path / "kohya", style="kohya")
    exported(root, name, tmp_path / "plain")
    tensors = load_file(tmp_path / "kohya" / "lora.safetensors")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert {f"{layer}.lora_down.weight", f"{layer}.lora_up.weight", f"{layer}.alpha"} <= tensors.keys()
    assert float(tensors[f"{layer}.alpha"]) == 3.0
    assert any(key.startswith("lora_te_text_model_encoder_layers_0_self_attn_q_proj.") for key in tensors) == (name == "lora-text")
    first, second = (pipelined.loaded(root / "bases" / "sd") for _ in range(2))
    first.load_lora_weights(tmp_path / "kohya", weight_name="lora.safetensors")
    second.load_lora_weights(tmp_path / "plain")
    assert torch.allclose(theirs(first, PROMPT), theirs(second, PROMPT), atol=2e-5)


def test_the_average_is_exported_where_nothing_else_is_asked_for(root: Path, tmp_path: Path) -> None:
    exported(root, "lora", tmp_path / "ema", weights=None)
    exported(root, "lora", tmp_path / "live")
    assert not torch.equal(ours(tmp_path / "ema", PROMPT), ours(tmp_path / "live", PROMPT))


def test_the_same_seed_draws_what_an_evaluation_drew(root: Path, tmp_path: Path) -> None:
    from PIL import Image

    from trainjobs.evaluate.rows import by_row

    run = folder(root, "lora", (1, 0, 1))
    checkpoints, commit = locate(f"file://{run / 'checkpoints'}")
    export(checkpoints, commit, tmp_path / "plain", weights=None, dtype="fp32", plain=True)
    found = opened(tmp_path / "plain", "here", None, torch.device("cpu"))
    assert found.prompts[:2] == ["a red circle", "a blue square"]
    images = drawn(found, 2, 0, [], torch.device("cpu")).samples.images
    shown = max((run / "samples").glob("*.png"), key=lambda path: path.stem)
    assert np.abs(np.asarray(Image.open(shown), dtype=int) - np.asarray(by_row(images, found.prompts[:2]), dtype=int)).max() <= 1


def test_a_checkpoint_holds_what_is_trained_alone_and_names_its_base(root: Path) -> None:
    run = folder(root, "lora", (2, 3, 1))
    metadata = json.loads((group.last_commit(run) / "MANIFEST.json").read_text())["metadata"]
    files = metadata["base"]["files"]
    assert {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"} <= set(files) | {
        "tokenizer/vocab.json"
    }
    assert {path.name for path in group.last_commit(run).glob("rank-*/*.safetensors")} == {"denoiser.safetensors"}
    assert all("lora_" in name for name in group.weights(run, "denoiser"))
    held = group.weights(folder(root, "word", (2, 3, 2)), "denoiser")
    assert {name: tuple(rows.shape) for name, rows in held.items()} == {"text_encoder.embeddings.token_embedding.rows": (2, 16)}


@pytest.mark.parametrize(
    ("name", "asked", "where"),
    [("full", {"merge": True}, "--merge"), ("word", {"adapter": True}, "--adapter"), ("word", {"style": "kohya"}, "--style")],
)
def test_what_cannot_be_exported_is_refused(root: Path, tmp_path: Path, name: str, asked: dict[str, Any], where: str) -> None:
    with pytest.raises(JobError) as error:
        exported(root, name, tmp_path / "out", **asked)
    assert (error.value.code, error.value.where) == ("GTJ0108", where)
    assert not (tmp_path / "out").exists()


def test_a_word_s_norm_and_distance_are_metrics(root: Path) -> None:
    run = folder(root, "word", (1, 0, 1))
    distances = group.losses(run, "word/distance")
    assert distances[0] == 0.0
    assert distances[-1] > distances[1] > 0.0
    assert all(norm > 0.0 for norm in group.losses(run, "word/norm"))


def test_pictures_of_the_class_are_the_same_whoever_draws_them_and_drawn_once(root: Path) -> None:
    alone, shared = (folder(root, "booth", way) / "cache" / "class-images" for way in ((1, 0, 1), (2, 3, 1)))
    names = sorted(path.relative_to(alone) for path in alone.rglob("*.png"))
    assert len(names) == BOOTH["classImages"]
    assert all((alone / name).read_bytes() == (shared / name).read_bytes() for name in names)
    assert len({(alone / name).read_bytes() for name in names}) == len(names)
    assert group.losses(folder(root, "booth", (1, 0, 1)), "loss/class")


def test_the_commands_of_the_page_work(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/how-to/fine-tuning.md says to type behind a run, of a run that has ended."""
    page = (group.ROOT / "docs" / "how-to" / "fine-tuning.md").read_text()
    block = re.search(r"```text\n(gtj run -f pipeline\.yaml\n.*?)```", page, re.DOTALL)
    assert block
    monkeypatch.chdir(tmp_path)
    uri = f"file://{folder(root, 'lora', (1, 0, 1)) / 'checkpoints'}"
    for line in block[1].splitlines()[1:]:
        words = [uri if word == "pipeline" else word for word in shlex.split(line)[1:]]
        words += ["--out", "drawn"] if words[0] == "sample" and "--out" not in words else []
        assert status(words) == 0, line
    assert (tmp_path / "lora" / "pytorch_lora_weights.safetensors").is_file()
    assert (tmp_path / "lora-comfyui" / "lora.safetensors").is_file()
    assert (tmp_path / "merged" / "model_index.json").is_file()
    assert {"0000.png", "grid.png", "samples.json"} <= {path.name for path in (tmp_path / "drawn").iterdir()}
    (told,) = json.loads((tmp_path / "drawn" / "samples.json").read_text())["drawn"]
    assert (told["prompt"], told["guidance"]) == ("a red circle", 5.0)
    assert (tmp_path / "from-the-export" / "grid.png").is_file()
