"""What a manifest may say of a pretrained pipeline, in Python. tests/integration/test_crd_on_server.py compares it with CEL."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import Job
from trainjobs.api.rules import check

BASE = {"source": "hf://org/model"}
WORD = {"placeholder": "<toy>", "initializer": "toy"}
BOOTH = {"instancePrompt": "a photo of sks dog", "classPrompt": "a photo of a dog"}


def problems(diffusion: dict[str, Any], **training: Any) -> list[tuple[str, str]]:
    spec = {"diffusion": diffusion, "data": {"source": "builtin:shapes"}, "training": {"steps": 1, **training}}
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    return [(problem.code, ".".join(map(str, problem.path))) for problem in check(Job.model_validate(told))]


@pytest.mark.parametrize(
    "diffusion",
    [
        {"pretrained": BASE},
        {"pretrained": {**BASE, "revision": "v1.0"}, "adapt": {"type": "lora"}},
        {"pretrained": {"source": "s3://bucket/model"}, "adapt": {"type": "lora", "textEncoder": True, "dreambooth": BOOTH}},
        {"pretrained": BASE, "adapt": {"type": "textual-inversion", "textualInversion": WORD}},
        {"pretrained": BASE, "sampler": {"guidance": 7.5}},  # pipelines have learned what there is without a prompt
        {"pretrained": BASE, "conditioning": {"type": "text", "dropout": 0.2}},
        {"pretrained": BASE, "process": {"prediction": "v", "minSnrGamma": 5.0}},
        {"pretrained": BASE, "process": {"prediction": "flow", "timeSampling": "logit-normal"}},
        {"pretrained": BASE, "network": {"channels": 32}, "process": {"schedule": "cosine"}},  # defaults never offend
    ],
)
def test_these_are_fine(diffusion: dict[str, Any]) -> None:
    assert problems(diffusion) == []


@pytest.mark.parametrize(
    ("diffusion", "expected"),
    [
        ({"adapt": {}}, ("GTJ0108", "spec.diffusion.adapt")),
        ({"adapt": {"dreambooth": BOOTH}}, ("GTJ0108", "spec.diffusion.adapt")),
        ({"pretrained": BASE, "network": {"channels": 64}}, ("GTJ0108", "spec.diffusion.network.channels")),
        ({"pretrained": BASE, "process": {"schedule": "linear"}}, ("GTJ0108", "spec.diffusion.process.schedule")),
        ({"pretrained": BASE, "process": {"prediction": "flow", "shift": 3.0}}, ("GTJ0108", "spec.diffusion.process.shift")),
        ({"pretrained": BASE, "conditioning": {"type": "class"}}, ("GTJ0108", "spec.diffusion.conditioning.type")),
        ({"pretrained": BASE, "conditioning": {"type": "text", "width": 64}}, ("GTJ0108", "spec.diffusion.conditioning.width")),
        (
            {"pretrained": BASE, "conditioning": {"type": "text"}, "adapt": {"type": "lora", "dreambooth": BOOTH}},
            ("GTJ0108", "spec.diffusion.conditioning"),
        ),
        ({"pretrained": BASE, "adapt": {"type": "textual-inversion"}}, ("GTJ0108", "spec.diffusion.adapt.type")),
        ({"pretrained": BASE, "adapt": {"type": "full", "lora": {"rank": 8}}}, ("GTJ0108", "spec.diffusion.adapt.lora.rank")),
        ({"pretrained": BASE, "adapt": {"type": "lora", "textualInversion": WORD}}, ("GTJ0108", "spec.diffusion.adapt.textualInversion")),
        ({"pretrained": {"source": "hf://model"}}, ("GTJ0107", "spec.diffusion.pretrained.source")),
        ({"pretrained": {"source": "file://model"}}, ("GTJ0107", "spec.diffusion.pretrained.source")),
        ({"pretrained": {"source": "s3://b/m", "revision": "v1"}}, ("GTJ0108", "spec.diffusion.pretrained.revision")),
    ],
)
def test_these_are_refused(diffusion: dict[str, Any], expected: tuple[str, str]) -> None:
    assert problems(diffusion) == [expected]


def test_dreambooth_without_a_pipeline_is_called_by_its_name() -> None:
    spec = {"diffusion": {"adapt": {"dreambooth": BOOTH}}, "data": {"source": "builtin:shapes"}, "training": {"steps": 1}}
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    (problem,) = check(Job.model_validate(told))
    assert "DreamBooth without a pretrained pipeline" in problem.error().line()


@pytest.mark.parametrize("field", ["initialWeights", "distillation"])
def test_two_beginnings_are_refused(field: str) -> None:
    value: Any = "s3://b/w" if field == "initialWeights" else {"teacher": "s3://b/t"}
    assert problems({"pretrained": BASE}, **{field: value}) == [("GTJ0108", f"spec.training.{field}")]


def test_samples_are_drawn_for_prompts_without_a_condition_of_one_s_own() -> None:
    spec = {
        "diffusion": {"pretrained": BASE},
        "data": {"source": "builtin:shapes"},
        "training": {"steps": 1},
        "evaluation": {"prompts": ["a red circle"]},
    }
    told = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec}
    assert check(Job.model_validate(told)) == []
    del spec["diffusion"]["pretrained"]
    assert [problem.code for problem in check(Job.model_validate(told))] == ["GTJ0108"]
