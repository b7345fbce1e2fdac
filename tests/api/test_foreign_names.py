"""Names of other tools lead to fields that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainjobs.api.foreign_names import FOREIGN, UNITS, ours, page
from trainjobs.api.job import API_VERSION, KIND, Spec
from trainjobs.api.parse import parse
from trainjobs.api.problem import plain
from trainjobs.api.shape import annotation_at, fields, model_of

EVERY = [(tool, name, path) for tool, names in FOREIGN.items() for name, path in names.items()]


@pytest.mark.parametrize(("tool", "name", "path"), EVERY, ids=[f"{tool}-{name}" for tool, name, _ in EVERY])
def test_each_name_leads_to_a_field(tool: str, name: str, path: str) -> None:
    assert annotation_at(Spec, tuple(path.split("."))) is not None
    assert path in ours(name)


def test_no_two_tools_mean_two_things_by_a_name() -> None:
    found: dict[str, str] = {}
    for _, name, path in EVERY:
        assert found.setdefault(plain(name), path) == path, name
    assert UNITS.keys() <= {name for _, name, _ in EVERY}
    assert ours("nobodyCallsItThat") == ""


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        ("language.adapter", "lora_r", "peft's lora_r is spec.language.adapter.rank here"),
        ("language", "base_model", "axolotl's base_model is spec.language.base.source here"),
        ("language", "sequence_len", "axolotl's sequence_len is spec.language.network.contextLength here"),
        ("language.adapter", "lora_rank", "LLaMA-Factory's lora_rank is spec.language.adapter.rank here"),
        ("language.dpo", "pref_beta", "LLaMA-Factory's pref_beta is spec.language.dpo.beta here"),
        ("language.loss", "assistant_only_loss", "TRL's assistant_only_loss is spec.language.loss.tokens here: assistant"),
        ("language.grpo", "num_generations", "TRL's num_generations is spec.language.grpo.generations here"),
        ("training", "per_device_train_batch_size", "spec.training.batch.micro here: global / (processes * micro)"),
        ("gan.regularization", "r1_gamma", "StyleGAN's r1_gamma is spec.gan.regularization.r1.gamma here"),
        ("diffusion.process", "snr_gamma", "diffusers's snr_gamma is spec.diffusion.process.minSnrGamma here"),
        ("training", "train_batch_size", "diffusers's train_batch_size is spec.training.batch.global here: over all GPUs"),
        ("training", "trainBatchSize", "spec.training.batch.global"),
        ("training.ema", "ema_kimg", "spec.training.ema.halfLife here: images, not thousands"),
        ("training.optimizers.default", "learning_rate", 'did you mean "learningRate"?'),
        ("data.images", "resolution", "kohya's resolution is spec.data.images.size here"),
    ],
)
def test_validate_answers_with_the_field(place: str, name: str, says: str) -> None:
    family = place.split(".")[0] if place.split(".")[0] in ("gan", "language") else "diffusion"
    spec: dict[str, object] = {
        family: {},
        "data": {"source": "builtin:stdlib-text" if family == "language" else "builtin:shapes"},
        "training": {"steps": 1},
    }
    at = spec
    for key in place.split("."):
        at = at.setdefault(key, {})  # type: ignore[assignment]
    at[name] = 1
    _, problems = parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec})
    (found,) = [problem for problem in problems if problem.code == "GTJ0101"]
    assert says in found.how


def test_no_field_of_a_place_is_answered_by_another_tools_name() -> None:
    """A field that is only spelt otherwise stays where it is."""
    process = model_of(annotation_at(Spec, ("diffusion", "process")))
    assert process is not None
    assert "minSnrGamma" in fields(process)
    spec = {"diffusion": {"process": {"min_snr_gamma": 5}}, "data": {"source": "builtin:shapes"}, "training": {"steps": 1}}
    _, problems = parse({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": spec})
    assert [problem.how for problem in problems] == ['did you mean "minSnrGamma"?']


def test_the_page_names_them_all() -> None:
    text = Path("docs/reference/names.md").read_text()
    assert text == page()
    assert all(f"| `{name}` | `{path}` |" in text for _, name, path in EVERY)
