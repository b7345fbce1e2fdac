"""A base whose own chat template ends an answer with another token than its end of text, as Gemma's and Llama 3's do: what is drawn of it
stops there, in rollouts and samples, and what is exported stops there in transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

from tests.data.test_job_template import base
from tests.models import bases
from trainjobs.cli.main import status
from trainjobs.data.known_templates import TEXTS

pytestmark = pytest.mark.slow

OPENS, ENDS = "<|im_start|>", "<|im_end|>"
ENDED = 258  # its number
MOST = 6
METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "grpo": {"generations": 2, "maxCompletion": MOST, "rewards": [{"function": "length", "target": 3}]},
    "ppo": {"maxCompletion": MOST, "rewards": [{"function": "length", "target": 3}]},
    "ppo-lora": {"maxCompletion": MOST, "rewards": [{"function": "length", "target": 3}]},
}


def talk(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{number} and {number}"}, {"role": "assistant", "content": f"{2 * number}"}]


def model() -> Any:
    """It ends every turn at once, and never a text: hidden states are all the same, and the last layer knows two rows."""
    made = bases.model("gpt2")
    with torch.no_grad():
        made.transformer.ln_f.weight.zero_()
        made.transformer.ln_f.bias.fill_(1.0)
        made.lm_head.weight.zero_()
        made.lm_head.weight[ENDED], made.lm_head.weight[256] = 1.0, -1.0
    made.generation_config.eos_token_id = 256
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ends")
    base(root / "base", [OPENS, ENDS], pad=bases.END, eos_token=bases.END)
    model().save_pretrained(root / "base")
    (root / "base" / "chat_template.jinja").write_text(TEXTS["chatml"])
    for name, rows in (("chats", [{"messages": talk(n)} for n in range(20)]), ("prompts", [{"prompt": talk(n)[:1]} for n in range(20)])):
        (root / name).mkdir()
        (root / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    group.run_group(1, [f"{group.prepare(root / method, spec(root, method))}" for method in METHODS], root, script="at_once.py")
    return root


def spec(root: Path, name: str) -> dict[str, Any]:
    method, _, adapter = name.partition("-")
    own = {} if method == "sft" else {"method": method, method: METHODS[name]}
    own |= {"adapter": {"type": adapter, "rank": 2}} if adapter else {}
    return {
        "language": {"base": {"source": f"file://{root / 'base'}"}, "network": {"contextLength": 96}, **own},
        "data": {"source": f"file://{root / ('chats' if method == 'sft' else 'prompts')}", "holdout": 0.2},
        "training": {"steps": 1, "batch": {"global": 4}, "optimizers": {"default": {"name": "sgd", "learningRate": 1e-6}}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 4},
    }


@pytest.mark.parametrize("method", ["grpo", "ppo", "ppo-lora"])
def test_rollouts_end_with_the_turn(method: str, root: Path) -> None:
    """An answer that is over counts with its end, and is not one that was cut off."""
    assert group.losses(root / method, "completion/length") == [1.0]
    assert group.losses(root / method, "completion/ended") == [1.0]


@pytest.mark.parametrize("method", METHODS)
def test_samples_end_with_the_turn_and_the_report_says_where(method: str, root: Path) -> None:
    (path,) = (root / method / "samples").glob("step-*.txt")
    assert path.read_text().count("→") == 4
    assert all(line.split("→")[1].strip() == "" for line in path.read_text().splitlines() if "→" in line), "an end, and nothing behind it"
    assert json.loads((root / method / "progress.json").read_text())["ends"] == f"{bases.END}, {ENDS}"
    assert status(["report", str(root / method)]) == 0
    assert "what is drawn ends at" in (root / method / "report.html").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_is_what_the_user_says_where_conversations_were_learned(
    method: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from trainjobs.objectives.language import answers

    seen: list[Any] = []
    complete = answers.complete
    monkeypatch.setattr(answers, "complete", lambda *all: seen.append(all) or complete(*all))
    assert status(["sample", str(root / method), "--prompt", "1 and 1", "--out", str(tmp_path / "drawn")]) == 0
    expected = AutoTokenizer.from_pretrained(root / "base").apply_chat_template(talk(1)[:1], add_generation_prompt=True)["input_ids"]
    (_, prompts, *_), *_ = seen
    assert prompts.tolist() == [expected]


def test_an_export_ends_there_in_transformers(root: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    assert status(["checkpoints", "export", f"file://{root / 'sft' / 'checkpoints'}", str(out)]) == 0
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert tokenizer.eos_token == bases.END, "the base's tokenizer is left as it was"
    assert theirs.generation_config.eos_token_id == [256, ENDED]
    asked = tokenizer.apply_chat_template(talk(1)[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = theirs.generate(**asked, max_new_tokens=MOST, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert made.tolist() == [ENDED]
