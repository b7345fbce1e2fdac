"""What a user may get wrong with a language model, row by row: found before anything trains, with one code, and words that say what, where
and how to mend it. Manifests as they are validated; data at its first look where that reads far enough, else as it is prepared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.parse import parse
from trainjobs.world import World

END = "<|end|>"
SMALL = {"architecture": "llama", "layers": 1, "hidden": 16, "heads": 2, "contextLength": 32}
REWARDS = [{"function": "length", "target": 8}]
USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
PAIR = {"prompt": "a", "completion": "b"}
Row = Mapping[str, Any]


def told(root: Path, data: Any, language: Row | None = None, size: int = 4, *, build: bool = False) -> tuple[str, str]:
    """(code, message) of the first thing that is refused of a job; ("", "") where nothing is. `build`: also as its networks are made."""
    from trainjobs.data import open_source, preflight
    from trainjobs.data.pretrained import look

    source = data
    if isinstance(data, list):
        (root / "data").mkdir()
        (root / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
        source = f"file://{root / 'data'}"
    network = {"contextLength": 32} if "base" in (language or {}) else SMALL
    (root / "run").mkdir()
    spec = {
        "language": {"network": network, **(language or {})},
        "data": {"source": source, "holdout": 0},
        "training": {"steps": 1, "batch": {"global": size}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
    }
    job, problems = parse({"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "a"}, "spec": spec})
    if problems:
        return problems[0].code, str(problems[0].error())
    assert job is not None
    try:
        for base in (job.spec.language.base, job.spec.language.distill.teacher) if job.spec.language else ():
            if base is not None:
                look(base)
        preflight(job.spec)
        opened = open_source(job.spec, root / "cache")
        if build:
            from trainjobs.checkpointer.built import built

            built(job.spec, opened.info, opened.info.base, World(0, 1, torch.device("cpu")), root / "run", tell=lambda words: None)
    except JobError as error:
        return error.code, str(error)
    return "", ""


def of_language(method: str, **part: Any) -> dict[str, Any]:
    return {"method": method, method: part}


def long(count: int) -> Row:
    return {"prompt": "why " * count, "completion": "so"}


FAST: dict[str, tuple[Any, Row, int, str, tuple[str, ...]]] = {  # data, language, batch, code, words
    "columns whose completion has no known name": (
        [{"question": "a", "id": "1"}],
        {},
        4,
        "GTJ0113",
        ("question (prompt)", "messages (of role and content)", "nearest is prompt and completion: name data.columns.completion"),
    ),
    "columns of no known name": ([{"heading": "a", "body": "b"}], {}, 4, "GTJ0108", ("heading (text), body (text)", "data.columns.text")),
    "a row of another format": (
        [PAIR, {"prompt": "c"}],
        {},
        4,
        "GTJ0113",
        ("train.jsonl:2", "no text for completion", "it has prompt", "promise prompt and completion"),
    ),
    "rows of two formats": (
        [PAIR, {"text": "c"}],
        {},
        4,
        "GTJ0113",
        ("train.jsonl:1", "no text in field text", "prompt, completion, text"),
    ),
    "a wrong type": ([PAIR, {"prompt": 3, "completion": "b"}], {}, 4, "GTJ0113", ("train.jsonl:2", "prompt", "3")),
    "an unknown role": (
        [{"messages": [USER, {"role": "robot", "content": "ho"}]}],
        {},
        4,
        "GTJ0113",
        ("train.jsonl:1", "message 2", "robot"),
    ),
    "no token is trained": ([{"messages": [USER]}] * 3, {}, 4, "GTJ0113", ("leaves no token of 3 records", "loss.tokens")),
    "none is left of what assistants say": (
        [{"messages": [USER]}] * 3,
        {"loss": {"tokens": "assistant"}},
        4,
        "GTJ0113",
        ("loss.tokens: assistant leaves no token of 3 records",),
    ),
    "answers longer than the context": ([long(20), long(30)], {}, 4, "GTJ0113", ("no record of 2 fits", "2 are longer", "contextLength")),
    "a prompt that leaves no room": (
        [{"prompt": "why " * 20}],
        of_language("grpo", rewards=REWARDS, generations=2, maxCompletion=16),
        4,
        "GTJ0113",
        ("no record of 1 fits", "contextLength"),
    ),
    "maxCompletion that fills the context": (
        [{"prompt": "why"}],
        of_language("grpo", rewards=REWARDS, generations=2, maxCompletion=32),
        4,
        "GTJ0108",
        ("maxCompletion 32", "no room for a prompt"),
    ),
    "virtual tokens that fill the context": (
        "builtin:stdlib-text",
        {"base": {"source": "file:///base"}, "adapter": {"type": "prompt", "virtualTokens": 32}},
        4,
        "GTJ0108",
        ("virtualTokens 32 with a contextLength of 32", "raise language.network.contextLength"),
    ),
    "chosen equal to rejected": (
        [{"prompt": "a", "chosen": "b", "rejected": "b"}],
        of_language("dpo"),
        4,
        "GTJ0113",
        ("train.jsonl:1", "the chosen answer is the rejected one"),
    ),
    "an empty split": ([], {}, 4, "GTJ0113", ("the data is empty", "/data")),
    "a base that is not there": ("builtin:stdlib-pairs", {"base": {"source": "file:///no/such"}}, 4, "GTJ0118", ("/no/such",)),
    "generations that do not divide the batch": (
        "builtin:stdlib-pairs",
        of_language("grpo", rewards=REWARDS, generations=8, maxCompletion=8),
        20,
        "GTJ0103",
        ("8 generations do not divide a global batch of 20", "16 or 24"),
    ),
    "a field of TRL": ("builtin:stdlib-pairs", {"adapter": {"lora_r": 8}}, 4, "GTJ0101", ("lora_r", "adapter.rank")),
    "topK with onPolicy": (
        "builtin:stdlib-pairs",
        {"packing": "none", **of_language("distill", teacher={"source": "file:///teacher"}, topK=8, onPolicy=0.5)},
        4,
        "GTJ0108",
        ("topK with onPolicy: 0.5", "take onPolicy out"),
    ),
}


@pytest.mark.parametrize("what", FAST)
def test_a_row_is_refused_before_anything_starts(what: str, tmp_path: Path) -> None:
    data, language, size, code, words = FAST[what]
    found, message = told(tmp_path, data, language, size)
    assert found == code, f"{found} {message}"
    for word in words:
        assert word in message, message


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.bases import base

    root = tmp_path_factory.mktemp("bases")
    base(root / "base", "llama", layers=1)
    return root


def copied(bases: Path, root: Path, change: Callable[[Path], None]) -> str:
    import shutil

    folder = root / "base"
    shutil.copytree(bases / "base", folder)
    change(folder)
    return f"file://{folder}"


def rewritten(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(found | values))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


def other_words(folder: Path) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    words = found["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (folder / "tokenizer.json").write_text(json.dumps(found))


LAST_ONLY = "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.role }}: {{ m.content }}" + END + "{% endif %}{% endfor %}"
STRICT = (
    "{% for m in messages %}{% if loop.index0 and m.role == messages[loop.index0 - 1].role %}{{ raise_exception('roles must alternate') }}"
    + ("{% endif %}{{ m.role }}: {{ m.content }}" + END + "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}")
)
TALK = {"messages": [USER, ANSWER, USER, ANSWER]}
SLOW: dict[str, tuple[Any, Callable[[Path], None], Row, str, tuple[str, ...]]] = {
    "two user turns where the template forbids it": (
        [{"messages": [USER, ANSWER]}, {"messages": [USER, USER, ANSWER]}],
        template(STRICT),
        {},
        "GTJ0113",
        ("train.jsonl:2", "roles must alternate"),
    ),
    "a template whose prefixes are no prefixes": ([TALK], template(LAST_ONLY), {}, "GTJ0113", ("train.jsonl:1", "token ", "completion")),
    "a message that is a special token": (
        [{"messages": [{"role": "user", "content": f"hi{END}"}, ANSWER]}],
        template(STRICT),
        {},
        "GTJ0113",
        ("train.jsonl:1", "message 1 holds", END),
    ),
    "a tokenizer larger than the embedding": ([PAIR], rewritten("config.json", vocab_size=200), {}, "GTJ0208", ("259", "200")),
    "no tokenizer": ([PAIR], lambda folder: (folder / "tokenizer.json").unlink(), {}, "GTJ0109", ("tokenizer.json",)),
    "a base of another class": (
        [PAIR],
        rewritten("config.json", architectures=["LlamaForSequenceClassification"]),
        {},
        "GTJ0109",
        ("class",),
    ),
    "pickled weights": ([PAIR], pickled, {}, "GTJ0109", ("pytorch_model.bin", "safetensors")),
    "code beside the weights": (
        [PAIR],
        rewritten("config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "mine.Mine"}),
        {},
        "GTJ0109",
        ("mine", "never run"),
    ),
    "conversations for a base without a template": ([TALK], lambda folder: None, {}, "GTJ0108", ("no chat template", "language.template")),
    "a template whose tokens the base has not": (
        [TALK],
        lambda folder: None,
        {"template": "chatml"},
        "GTJ0108",
        ("no special token <|im_start|> and <|im_end|>", "zephyr"),
    ),
    "a template for plain text": ([{"text": "a b c " * 9}], lambda folder: None, {"template": "zephyr"}, "GTJ0108", ("plain text",)),
    "targets that match no layer": ([PAIR], lambda folder: None, {"adapter": {"targets": ["query_*"]}}, "GTJ0102", ("query_*", "q_proj")),
    "a reward that cannot be imported": (
        [{"prompt": "a"}],
        lambda folder: None,
        of_language("grpo", rewards=[{"function": "no.such:thing"}], generations=2, maxCompletion=8),
        "GTJ0102",
        ("no.such:thing cannot be imported", "language.grpo.rewards", "PYTHONPATH"),
    ),
    "prefix with packing": (
        [PAIR],
        lambda folder: None,
        {"adapter": {"type": "prefix", "virtualTokens": 4}, "packing": "bfd"},
        "GTJ0108",
        ("adapter prefix with records", "found by position"),
    ),
    "a teacher of another vocabulary": ([PAIR], other_words, of_language("distill"), "GTJ0108", ("another vocabulary", "is token")),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SLOW)
def test_a_base_or_its_data_is_refused_before_anything_starts(what: str, bases: Path, tmp_path: Path) -> None:
    data, change, language, code, words = SLOW[what]
    given = copied(bases, tmp_path, change)
    asked = {"base": {"source": given}, **language}
    if language.get("method") == "distill":
        asked = {"base": {"source": f"file://{bases / 'base'}"}, "method": "distill", "distill": {"teacher": {"source": given}}}
    found, message = told(tmp_path, data, asked, build=True)
    assert found == code, f"{found} {message}"
    for word in words:
        assert word in message, message


@pytest.mark.slow
@pytest.mark.parametrize(("own", "named"), [(False, False), (True, False), (False, True)])
def test_conversations_for_a_base_need_a_template_its_own_or_the_job_s(own: bool, named: bool, bases: Path, tmp_path: Path) -> None:
    uri = copied(bases, tmp_path, template(STRICT) if own else lambda folder: None)
    asked = {"base": {"source": uri}, **({"template": "zephyr"} if named else {})}
    code, message = told(tmp_path, [{"messages": [USER, ANSWER]}] * 4, asked)
    assert code == ("" if own or named else "GTJ0108")
    assert own or named or f"no chat template, and the data is conversations ({uri})" in message
    assert own or named or "language.template: chatml, llama3, gemma, mistral or zephyr" in message
