"""A chat template that a job names, through a whole run: the commit keeps its text, an export is read by transformers as it was trained,
`gtj sample` asks by it, and a run that goes on is refused another one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group

from tests.data.test_job_template import OWN, base
from tests.models import bases
from trainjobs.api.language import Language
from trainjobs.cli.main import status
from trainjobs.data.chat_template import template_of
from trainjobs.data.conversation import Message
from trainjobs.data.job_template import tokenizer_of
from trainjobs.data.known_templates import TEXTS
from trainjobs.data.pretrained import Pretrained

pytestmark = pytest.mark.slow

TALK = [{"role": "user", "content": "2 and 2"}, {"role": "assistant", "content": "4"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("templates")
    base(root / "base", ["<|im_start|>", "<|im_end|>"], pad=bases.END, eos_token=bases.END)
    made = bases.model("gpt2")
    made.generation_config.eos_token_id = 256
    made.save_pretrained(root / "base")
    (root / "own.jinja").write_text(OWN)
    (root / "chats").mkdir()
    rows = [[{"role": "user", "content": f"{n} and {n}"}, {"role": "assistant", "content": f"{2 * n}"}] for n in range(40)]
    (root / "chats" / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    folders = [f"{group.prepare(root / name, spec(root, template, adapter))}" for name, template, adapter in (
        ("whole", "chatml", {}),
        ("lora", f"file://{root / 'own.jinja'}", {"adapter": {"rank": 2}}),
    )]  # fmt: skip
    group.run_group(1, folders, root, script="at_once.py")
    return root


def spec(root: Path, template: str | None, more: dict[str, Any], steps: int = 2) -> dict[str, Any]:
    language = {"base": {"source": f"file://{root / 'base'}"}, "network": {"contextLength": 48}, **more}
    return {
        "language": {**language, **({"template": template} if template else {})},
        "data": {"source": f"file://{root / 'chats'}", "holdout": 0.2},
        "training": {"steps": steps, "batch": {"global": 4}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "evaluation": {"samples": 2},
    }


def exported(root: Path, name: str, out: Path, *more: str) -> Path:
    assert status(["checkpoints", "export", f"file://{root / name / 'checkpoints'}", str(out), *more]) == 0
    return out


def test_an_export_is_read_by_transformers_as_it_was_trained(root: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(root, "whole", tmp_path / "out")
    assert (folder / "chat_template.jinja").read_text() == TEXTS["chatml"]
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(TALK)["input_ids"]
    files = {path.name: "digest" for path in folder.iterdir()}
    again = tokenizer_of(Language(), Pretrained("source", "uri", folder, files))  # as a base to go on from, by its own template
    assert template_of(again).render([Message(**turn) for turn in TALK], opened=False) == expected
    assert theirs.eos_token == "<|im_end|>"
    assert again.end == theirs.eos_token_id
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == [again.end, 256]
    torch.manual_seed(0)
    made = model.generate(torch.tensor([expected]), max_new_tokens=40, do_sample=True)[0].tolist()
    assert again.end not in made[len(expected) : -1], "what stops it is the end of an answer"


@pytest.mark.parametrize("more", [(), ("--merge",)])
def test_an_adapter_comes_with_the_template_and_the_tokenizer(root: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    from transformers import AutoTokenizer

    folder = exported(root, "lora", tmp_path / "out", *more)
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs.apply_chat_template(TALK, tokenize=False) == f"user: 2 and 2{bases.END}assistant: 4{bases.END}"
    assert theirs.eos_token == bases.END


@pytest.mark.parametrize("name", ["whole", "lora"])
def test_samples_are_asked_for_by_the_template(name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    from trainjobs.objectives.language import answers

    seen: list[Any] = []
    complete = answers.complete
    monkeypatch.setattr(answers, "complete", lambda *all: seen.append(all) or complete(*all))
    assert status(["sample", str(root / name), "--prompt", "2 and 2", "--count", "2", "--out", str(tmp_path / "drawn")]) == 0
    theirs = AutoTokenizer.from_pretrained(exported(root, name, tmp_path / "out"))
    expected = theirs.apply_chat_template(TALK[:1], add_generation_prompt=True)["input_ids"]
    (_, prompts, lengths, _, ends, *_), *_ = seen
    assert prompts.tolist() == [expected] * 2
    assert lengths.tolist() == [len(expected)] * 2
    assert ends[0] == theirs.eos_token_id


@pytest.mark.parametrize(("name", "why"), [("lora", "line 1 differs"), ("whole", "one of its own")])
def test_a_run_that_goes_on_is_refused_another_template(name: str, why: str, root: Path) -> None:
    if name == "lora":
        (root / "own.jinja").write_text(OWN.replace("': '", "'- '"))
        again = spec(root, f"file://{root / 'own.jinja'}", {"adapter": {"rank": 2}}, steps=4)
    else:
        (root / "base" / "chat_template.jinja").write_text(OWN)
        again = spec(root, None, {}, steps=4)
        (root / "base" / "chat_template.jinja").unlink()
    group.prepare(root / name, again)
    with pytest.raises(AssertionError, match=rf"GTJ0208 the chat template is another one than the checkpoint's .*{why}"):
        group.run_group(1, [str(root / name)], root)
