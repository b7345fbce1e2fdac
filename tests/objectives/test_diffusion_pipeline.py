"""What is refused of a pretrained pipeline, with what, where and why; and words that are learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.pipelines import pipeline, saved
from trainjobs.api.buckets import Buckets
from trainjobs.api.diffusion_pretrained import ATTENTION, Lora
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job, Spec
from trainjobs.data.captions import tokens
from trainjobs.data.places.place import ALONE
from trainjobs.data.pretrained import look, of_job
from trainjobs.data.source import DataInfo
from trainjobs.models.new_words import NewWords
from trainjobs.models.pipeline_adapters import low_rank
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.diffusion.pipeline import PipelineObjective
from trainjobs.objectives.phase import Batch, Model

pytestmark = pytest.mark.slow  # diffusers and transformers are imported

WORD = {"placeholder": "<toy>", "initializer": "toy", "vectors": 2}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    for kind in ("sd", "sd3", "sd3-t5"):
        saved(root / kind, kind)
    return root


def spec(folder: Path, training: dict[str, Any] | None = None, **diffusion: Any) -> Spec:
    told = {
        "diffusion": {"pretrained": {"source": f"file://{folder}"}, **diffusion},
        "data": {"source": "builtin:shapes", "images": {"size": 8}},
        "training": {"steps": 2, "batch": {"global": 4}, **(training or {})},
    }
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": told}
    return Job.model_validate(job).spec


def made(folder: Path, cache: Path, *, size: int = 8, channels: int = 3, training: dict[str, Any] | None = None, **diffusion: Any) -> Model:
    chosen = spec(folder, training, **diffusion)
    torch.manual_seed(0)
    return build(chosen, DataInfo("image", (channels, size, size), 8, 0), of_job(chosen, cache, ALONE))


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., JobError]:
    def refusal(folder: Path, **diffusion: Any) -> JobError:
        with pytest.raises(JobError) as error:
            made(folder, tmp_path / "cache", **diffusion)
        return error.value

    return refusal


def copy(base: Path, to: Path, change: Callable[[Path], object]) -> Path:
    import shutil

    shutil.copytree(base, to)
    change(to)
    return to


def edit(file: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def each(part: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    """The change of all weights of a part."""
    return lambda folder: [change(path) for path in (folder / part).glob("*.safetensors")]


def test_another_prediction_than_the_pipeline_s_is_refused(bases: Path, refused: Callable[..., JobError]) -> None:
    error = refused(bases / "sd", process={"prediction": "v"})
    assert (error.code, error.where) == ("GTJ0108", "diffusion.process.prediction")
    assert "predict epsilon" in error.why
    assert refused(bases / "sd3", process={"prediction": "sample"}).code == "GTJ0108"


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"process": {"minSnrGamma": 5.0}}, "diffusion.process.minSnrGamma"),
        ({"sampler": {"eta": 1.0}}, "diffusion.sampler.eta"),
    ],
)
def test_what_a_flow_has_not_is_refused(bases: Path, refused: Callable[..., JobError], more: dict[str, Any], where: str) -> None:
    error = refused(bases / "sd3", **more)
    assert (error.code, error.where) == ("GTJ0108", where)


def test_images_that_cannot_become_latents_are_refused(bases: Path, refused: Callable[..., JobError]) -> None:
    assert refused(bases / "sd", channels=1).where == "data.images.channels"
    error = refused(bases / "sd", size=10)  # 2 pixels to a latent, halved once
    assert (error.code, error.where) == ("GTJ0108", "data.images.size")
    assert "a multiple of 4" in error.how


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (each("unet", lambda path: path.rename(path.with_suffix(".bin"))), "GTJ0109", "may run code"),
        (each("vae", lambda path: path.unlink()), "GTJ0118", "no .safetensors lie in vae"),
        (lambda folder: (folder / "model_index.json").unlink(), "GTJ0118", "model_index.json is missing"),
        (edit("model_index.json", _class_name="FluxPipeline"), "GTJ0109", "it is a FluxPipeline"),
        (edit("model_index.json", unet=["mine", "MyNetwork"]), "GTJ0109", "its unet is MyNetwork"),
        (edit("scheduler/scheduler_config.json", prediction_type="mine"), "GTJ0109", "names no betas"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{"), "GTJ0109", ""),
    ],
)  # fmt: skip
def test_a_base_that_cannot_be_used_is_refused(
    bases: Path, tmp_path: Path, refused: Callable[..., JobError], change: Callable[[Path], object], code: str, words: str
) -> None:
    import re

    error = refused(copy(bases / "sd", tmp_path / "base", change))
    assert error.code == code
    assert re.search(words, error.line())


def test_a_base_is_looked_at_before_anything_starts(bases: Path, tmp_path: Path) -> None:
    broken = copy(bases / "sd", tmp_path / "base", lambda folder: (folder / "model_index.json").unlink())
    pretrained = spec(broken).diffusion
    assert pretrained is not None
    assert pretrained.pretrained is not None
    with pytest.raises(JobError, match="GTJ0118"):
        look(pretrained.pretrained)


def test_another_base_on_resume_is_refused(bases: Path, tmp_path: Path) -> None:
    chosen = spec(bases / "sd")
    before = of_job(chosen, tmp_path / "cache", ALONE)
    assert before is not None
    other = copy(bases / "sd", tmp_path / "other", edit("scheduler/scheduler_config.json", beta_end=0.02))
    with pytest.raises(JobError, match=r"scheduler_config\.json differs") as error:
        of_job(spec(other), tmp_path / "cache", ALONE, before.account)
    assert (error.value.code, error.value.where) == ("GTJ0208", "diffusion.pretrained.source")


def test_a_placeholder_that_is_a_token_is_refused(bases: Path, refused: Callable[..., JobError]) -> None:
    error = refused(bases / "sd", adapt={"type": "textual-inversion", "textualInversion": {**WORD, "placeholder": "red</w>"}})
    assert (error.code, error.where) == ("GTJ0102", "diffusion.adapt.textualInversion.placeholder")


def test_an_initializer_of_several_tokens_is_refused(bases: Path, refused: Callable[..., JobError]) -> None:
    error = refused(bases / "sd", adapt={"type": "textual-inversion", "textualInversion": {**WORD, "initializer": "elephant"}})
    assert (error.code, error.where) == ("GTJ0102", "diffusion.adapt.textualInversion.initializer")
    assert "of it: e, l, e, p" in error.why


def test_layers_that_are_not_there_are_refused(bases: Path, refused: Callable[..., JobError]) -> None:
    error = refused(bases / "sd", adapt={"type": "lora", "lora": {"targetModules": ["to_z"]}})
    assert (error.code, error.where) == ("GTJ0102", "diffusion.adapt.lora.targetModules")
    assert "down_blocks.*.attentions.*.transformer_blocks.*.attn1.to_q" in error.how


def test_captions_longer_than_the_tokenizer_are_told(bases: Path, tmp_path: Path) -> None:
    objective = made(bases / "sd", tmp_path / "cache").objective
    assert isinstance(objective, PipelineObjective)
    with pytest.raises(JobError) as error:
        objective.texts.ids(["a toy", "a " * 60, "a " * 50], "data.columns.caption")
    assert error.value.code == "GTJ0113"
    assert "2 of 3" in error.value.why
    assert "up to 62" in error.value.why


def test_a_word_s_rows_are_all_that_is_trained_and_all_of_them_are_in_each_prompt(bases: Path, tmp_path: Path) -> None:
    model = made(bases / "sd", tmp_path / "cache", adapt={"type": "textual-inversion", "textualInversion": WORD})
    network = model.modules["denoiser"]
    assert [name for name, p in network.named_parameters() if p.requires_grad] == ["text_encoder.embeddings.token_embedding.rows"]
    objective = model.objective
    assert isinstance(objective, PipelineObjective)
    (ids,) = objective.prompts
    first = len(objective.texts.tokenizers[0]) - 2
    assert ((ids >= first).sum(dim=1) == 2).all()
    for row in ids.tolist():
        place = row.index(first)
        assert row[place : place + 2] == [first, first + 1]


def test_new_rows_are_looked_up_beside_the_others() -> None:
    torch.manual_seed(0)
    table = torch.nn.Embedding(10, 4)
    words = NewWords(table, first=10, initializer=3, count=2)
    with torch.no_grad():
        words.rows[1] += 1.0
    found = words(torch.tensor([[0, 3, 10, 11]]))
    assert torch.equal(found[0, :2], table.weight[[0, 3]])
    assert torch.equal(found[0, 2], table.weight[3])
    assert torch.allclose(found[0, 3], table.weight[3] + 1.0)
    norm, distance = words.measured
    assert float(distance) == pytest.approx(1.0)  # 0 and 2
    assert float(norm) == pytest.approx(float(words.rows.detach().norm(dim=1).mean()))


def test_frozen_parts_stay_in_eval_mode(bases: Path, tmp_path: Path) -> None:
    network: Any = made(bases / "sd", tmp_path / "cache", adapt={"type": "lora"}).modules["denoiser"]
    network.train()
    assert network.unet.training
    assert not network.text_encoder.training


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_prediction_schedule_and_scale_are_the_pipeline_s(bases: Path, tmp_path: Path, kind: str) -> None:
    objective = made(bases / kind, tmp_path / "cache").objective
    assert isinstance(objective, PipelineObjective)
    theirs = pipeline(kind)
    assert objective.process.scale == theirs.vae.config.scaling_factor
    if kind == "sd3":
        assert (objective.process.prediction, objective.process.time_shift, objective.process.shift) == ("flow", 3.0, 0.0609)
    else:
        assert objective.process.prediction == "epsilon"
        assert torch.equal(objective.process.abar.float(), theirs.scheduler.alphas_cumprod)


def step(model: Model, precision: torch.dtype) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of four pictures, and the gradients of what is trained."""
    objective = model.objective
    assert isinstance(objective, PipelineObjective)
    noise = Noise.of(0, 0, "train.0", torch.arange(4))
    caption = torch.from_numpy(tokens(["a red circle"] * 4, 16, [""] * 4))
    data = objective.encode({"image": noise.normal("picture", 3, 8, 8).clamp(-1, 1), "caption": caption})
    objective.network.train()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss, _ = objective.denoising(Batch(data, noise, 4))
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in objective.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["sd", "sd3", "sd3-t5"])
def test_changes_are_in_fp32_beside_a_base_in_bfloat16(bases: Path, tmp_path: Path, kind: str) -> None:
    lora = {"type": "lora", "textEncoder": True}
    half = made(bases / kind, tmp_path / "cache", training={"precision": "bf16"}, adapt=lora)
    network = half.modules["denoiser"]
    assert {p.dtype for p in network.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in network.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in half.modules["vae"].parameters()} == {torch.float32}
    whole = made(bases / kind, tmp_path / "cache", adapt=lora)
    ours, theirs = step(half, torch.bfloat16)[0], step(whole, torch.float32)[0]
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_blocks_that_are_computed_again_have_the_same_gradients(bases: Path, tmp_path: Path, kind: str) -> None:
    again = made(bases / kind, tmp_path / "cache", training={"gradientCheckpointing": True}, adapt={"type": "lora"})
    network: Any = again.modules["denoiser"]
    assert network.denoiser.is_gradient_checkpointing
    loss, found = step(again, torch.float32)
    expected, gradients = step(made(bases / kind, tmp_path / "cache", adapt={"type": "lora"}), torch.float32)
    assert loss == expected
    assert found.keys() == gradients.keys()
    assert all(torch.allclose(found[name], gradients[name], atol=1e-7) for name in gradients)


def test_a_checkpoint_of_low_rank_changes_is_below_a_hundredth_of_a_real_base() -> None:
    """Counted: the denoiser of Stable Diffusion 1.5, as diffusers' defaults describe it, without its weights."""
    import diffusers

    with torch.device("meta"):
        network = diffusers.UNet2DConditionModel(cross_attention_dim=768)
        whole = sum(p.numel() for p in network.parameters())
        low_rank(network, Lora(), ATTENTION)
    changes = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert whole > 800_000_000
    assert 0 < changes < whole / 100
    print(f"{changes:,} of {whole:,} weights, {100 * changes / whole:.2f} %")


def test_the_third_text_encoder_is_read_and_never_trained(bases: Path, tmp_path: Path) -> None:
    model = made(bases / "sd3-t5", tmp_path / "cache", adapt={"type": "full", "textEncoder": True})
    network: Any = model.modules["denoiser"]
    network.train()
    trained = {name.partition(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"transformer", "text_encoder", "text_encoder_2"}
    assert not network.text_encoder_3.training  # its dropout is off
    objective = model.objective
    assert isinstance(objective, PipelineObjective)
    ids = objective.texts.ids(["a red circle"], "here")
    assert [own.shape[1] for own in ids] == [40, 40, 256]
    theirs = pipeline("sd3-t5")
    theirs.text_encoder_3.eval()
    with torch.no_grad():
        told, pooled = network.eval().told(ids)
        expected, _, pools, _ = theirs.encode_prompt("a red circle", None, None, do_classifier_free_guidance=False)
        other = network.told([ids[0], ids[1], objective.texts.ids(["a blue square"], "here")[2]])[0]
    assert torch.equal(told, expected)
    assert torch.equal(pooled, pools)
    assert not torch.equal(told, other)


def test_another_third_text_encoder_is_refused(bases: Path, tmp_path: Path, refused: Callable[..., JobError]) -> None:
    error = refused(
        copy(bases / "sd3-t5", tmp_path / "base", edit("model_index.json", text_encoder_3=["transformers", "UMT5EncoderModel"]))
    )
    assert error.code == "GTJ0109"
    assert "its text_encoder_3 is UMT5EncoderModel, and that of a StableDiffusion3Pipeline is a T5EncoderModel" in error.why


def test_parts_in_several_files_are_read_by_their_index(bases: Path, tmp_path: Path) -> None:
    theirs = pipeline("sd3-t5")
    theirs.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    assert (tmp_path / "base" / "text_encoder_3" / "model.safetensors.index.json").is_file()
    assert (tmp_path / "base" / "transformer" / "diffusion_pytorch_model.safetensors.index.json").is_file()
    found = made(tmp_path / "base", tmp_path / "cache", adapt={"type": "lora"}).modules["denoiser"].state_dict()
    whole = made(bases / "sd3-t5", tmp_path / "cache", adapt={"type": "lora"}).modules["denoiser"].state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.items() if "lora_" not in name)


def test_the_third_text_encoder_learns_a_word_without_dropout(bases: Path, tmp_path: Path) -> None:
    network: Any = made(bases / "sd3-t5", tmp_path / "cache", adapt={"type": "textual-inversion", "textualInversion": WORD}).modules[
        "denoiser"
    ]
    network.train()
    assert network.text_encoder.training
    assert not network.text_encoder_3.training
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == {
        "text_encoder.text_model.embeddings.token_embedding.rows",
        "text_encoder_2.text_model.embeddings.token_embedding.rows",
        "text_encoder_3.shared.rows",
    }


@pytest.mark.parametrize("kind", ["sd", "xl", "sd3"])
def test_a_batch_of_another_shape_is_learned_as_diffusers_networks_take_it(bases: Path, tmp_path: Path, kind: str) -> None:
    """Pictures 16 wide and 8 high: latents of their shape, and of XL sizes that are told as (height, width)."""
    if kind == "xl":
        saved(tmp_path / kind, kind)
    model = made(tmp_path / kind if kind == "xl" else bases / kind, tmp_path / "cache", adapt={"type": "lora"})
    objective: Any = model.objective
    noise, heard = Noise.of(0, 0, "train.0", torch.arange(2)), list[Any]()
    denoiser: Any = objective.network.denoiser
    denoiser.register_forward_hook(lambda network, given, told, output: heard.append((given, told, output.sample)), with_kwargs=True)
    caption = torch.from_numpy(tokens(["a red circle"] * 2, 16, [""] * 2))
    picture = noise.normal("picture", 3, 8, 16).clamp(-1, 1)
    loss, _ = objective.denoising(Batch(objective.encode({"image": picture, "caption": caption}), noise, 2))
    ((_, told, output),) = heard
    latents = objective.vae.encode(picture).latent_dist.mean
    assert output.shape == latents.shape
    assert output.shape[-1] == 2 * output.shape[-2]
    assert bool(loss.isfinite())
    if kind == "xl":
        assert told["added_cond_kwargs"]["time_ids"].tolist() == [[8, 16, 0, 0, 8, 16]] * 2


def test_sides_that_do_not_fit_a_pipeline_are_refused(bases: Path, tmp_path: Path) -> None:
    def error(kind: str, **buckets: Any) -> JobError:
        chosen = spec(bases / kind)
        images = chosen.data.images.model_copy(update={"buckets": Buckets(**buckets)})
        chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"images": images})})
        with pytest.raises(JobError) as found:
            build(chosen, DataInfo("image", (3, 8, 8), 8, 0), of_job(chosen, tmp_path / "cache", ALONE))
        return found.value

    long = error("sd3", step=8, max_side=512)
    assert (long.code, long.where) == ("GTJ0108", "data.images.buckets.maxSide")
    assert "16 places a side" in long.why
