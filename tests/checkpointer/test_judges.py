"""Trained models of rewards: what they say of completions is what transformers and our own runs say; their origin is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export.test_scores import END, based, stirred, written
from tests.models.bases import model
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.checkpointer.judged import preflight
from trainjobs.checkpointer.judges import with_judges
from trainjobs.data import open_source
from trainjobs.data.chat_template import FILE
from trainjobs.data.known_templates import TEXTS
from trainjobs.models.adapters import adapted
from trainjobs.objectives.build import build
from trainjobs.objectives.language.preference import Scored
from trainjobs.world import World

pytestmark = pytest.mark.slow  # transformers takes seconds to import

HERE = World(0, 1, torch.device("cpu"))
PROMPTS, COMPLETIONS = ["ask ", "tell me "], ["a", "something longer"]


def spec(source: str, method: str = "grpo", **more: Any) -> Spec:
    rewards = [{"function": "length", "target": 4}, {"source": source, "weight": 0.5}]
    network = {"architecture": "llama", "layers": 1, "hidden": 16, "heads": 2, "contextLength": 48}
    language = {"network": network, "method": method, method: {"rewards": rewards, "maxCompletion": 8, **more}}
    return Spec.model_validate({"language": language, "data": {"source": "builtin:stdlib-pairs"}, "training": {"steps": 1}})


def judged(source: str, folder: Path, method: str = "grpo") -> Any:
    asked = spec(source, method)
    preflight(asked)
    info = open_source(asked, folder / "cache").info
    return with_judges(build(asked, info), asked, HERE, folder)


def by_hand(scored: Any, end: int = END) -> list[float]:
    """Scores of what begins a text, prompt, completion and end, row by row; every byte is a token of its own."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(scored.folder)
    found = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = [end, *tokenizer(prompt).input_ids, *tokenizer(completion).input_ids, end]
        with torch.no_grad():
            found.append(float(scored(torch.tensor([ids]))))
    return found


@pytest.mark.parametrize("method", ["grpo", "ppo"])
@pytest.mark.parametrize("kind", ["folder", "checkpoint", "adapter"])
def test_scores_are_those_of_transformers_and_of_our_own_run(kind: str, method: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    language, more, _ = based(tmp_path, "llama")
    adapter = {"rank": 2} if kind == "adapter" else None
    network = model("llama")
    if adapter:
        from trainjobs.api.pretrained import Adapter

        network = adapted(network, Adapter.model_validate(adapter))
    own = stirred(Scored(network)).eval()
    out = written(tmp_path, own, {**language, **({"adapter": adapter} if adapter else {})}, more, merge=adapter is not None)
    made = judged(f"file://{out if kind == 'folder' else tmp_path / 'store'}", tmp_path, method)
    (judge,) = [judge for _, judge in made.objective.rewards.judges]
    found = judge(PROMPTS, COMPLETIONS, 0, HERE.device)

    class Theirs:
        folder, network = tmp_path / "base", AutoModelForSequenceClassification.from_pretrained(out, num_labels=1).eval()

        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            return self.network(input_ids=ids).logits[0, 0]  # type: ignore[no-any-return]

    class Ours(Theirs):
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            return own(input_ids=ids, last=torch.tensor([ids.shape[1]]))[0]  # type: ignore[no-any-return]

    assert found == pytest.approx(by_hand(Theirs()), abs=1e-5)
    assert found == pytest.approx(by_hand(Ours()), abs=1e-5)
    whole = made.objective.rewards(PROMPTS, COMPLETIONS, {}, 0, PROMPTS, HERE.device)
    lengths = [-abs(len(text) - 4) / 4 for text in COMPLETIONS]
    assert whole == pytest.approx([length + 0.5 * score for length, score in zip(lengths, found, strict=True)], abs=1e-6)
    frozen = made.networks["reward1"]
    assert frozen.origin.startswith("sha256:")
    assert frozen.groups == {}
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())


def test_what_is_no_model_of_rewards_is_refused(tmp_path: Path) -> None:
    language, more, _ = based(tmp_path, "llama")
    with pytest.raises(JobError, match=r"GTJ0118 .*rewards\[1\]\.source"):
        preflight(spec(f"file://{tmp_path / 'nowhere'}"))
    with pytest.raises(JobError, match=r"GTJ0109 .*rewards\[1\]\.source"):
        judged(language["base"]["source"], tmp_path)
    assert judged(f"file://{written(tmp_path, Scored(model('llama')), language, more)}", tmp_path).objective.rewards.judges


def test_a_prompt_with_its_completion_that_is_too_long_is_said(tmp_path: Path) -> None:
    language, more, _ = based(tmp_path, "llama")
    out = written(tmp_path, Scored(model("llama")), language, more)
    (out / FILE).write_text(TEXTS["zephyr"])
    (judge,) = [judge for _, judge in judged(f"file://{out}", tmp_path).objective.rewards.judges]
    with pytest.raises(JobError, match=r"GTJ0221 a reward model of language\.grpo\.rewards.1. failed at step 4 .* has 203 of its tokens"):
        judge(["a" * 100], ["b" * 101], 3, HERE.device)
    talk = [{"role": "user", "content": "Hi"}]
    assert judge([talk], ["so<|end|>assistant\nno"], 0, HERE.device) == judge([talk], ["soassistant\nno"], 0, HERE.device)
