"""The chat template that a job names: the published strings of each known format, transformers' tokens of the same text, what the base must
have for it, and where it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models.bases import BOS, END, PAD
from trainjobs.api.errors import JobError
from trainjobs.api.language import TEMPLATES, Language
from trainjobs.data.chat_template import Missing, template_of
from trainjobs.data.conversation import Message
from trainjobs.data.encoding import Encoder
from trainjobs.data.job_template import compare, ending, text_of, tokenizer_of
from trainjobs.data.known_templates import TEXTS, TOKENS
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

pytestmark = pytest.mark.slow  # transformers takes seconds to import

# (names of the special tokens, what is said, how those who made the format write it, with what opens the next answer)
PUBLISHED: dict[str, tuple[dict[str, str], list[tuple[str, str]], str]] = {
    "chatml": (
        {"eos_token": END},
        [("system", "You are ChatGPT."), ("user", "How are you"), ("assistant", "I am doing well!"), ("user", "How are you now?")],
        "<|im_start|>system\nYou are ChatGPT.<|im_end|>\n<|im_start|>user\nHow are you<|im_end|>\n<|im_start|>assistant\n"
        "I am doing well!<|im_end|>\n<|im_start|>user\nHow are you now?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama3": (
        {"eos_token": END, "bos_token": "<|begin_of_text|>"},
        [("system", "You are a helpful AI assistant for travel tips and recommendations"), ("user", "What can you help me with?")],
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful AI assistant for travel tips and recommendations<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "What can you help me with?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        {"eos_token": END, "bos_token": "<bos>"},
        [("user", "knock knock"), ("assistant", "who is there"), ("user", "Gemma")],
        "<bos><start_of_turn>user\nknock knock<end_of_turn>\n<start_of_turn>model\nwho is there<end_of_turn>\n"
        "<start_of_turn>user\nGemma<end_of_turn>\n<start_of_turn>model\n",
    ),
    "mistral": (
        {"eos_token": "</s>", "bos_token": "<s>"},
        [("user", "Hello, how are you?"), ("assistant", "Fine, and you?"), ("user", "I'm doing great!"), ("assistant", "Glad to hear!")],
        "<s>[INST] Hello, how are you?[/INST] Fine, and you?</s>[INST] I'm doing great![/INST] Glad to hear!</s>",
    ),
    "zephyr": (
        {"eos_token": "</s>"},
        [("system", "You are a pirate."), ("user", "How many?"), ("assistant", "Ah, me hearty matey!"), ("user", "Why?")],
        "<|system|>\nYou are a pirate.</s>\n<|user|>\nHow many?</s>\n<|assistant|>\nAh, me hearty matey!</s>\n<|user|>\nWhy?</s>\n"
        "<|assistant|>\n",
    ),
}
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>", "zephyr": "</s>"}


def base(folder: Path, tokens: list[str], pad: str = PAD, **named: str) -> Pretrained:
    """With one token per byte, and these special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([*dict.fromkeys([*named.values(), *tokens, pad])])
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=pad, **named).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 300}))
    return Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()})


def of(folder: Path, asked: str, **changed: Any) -> PretrainedTokenizer:
    given = {"tokens": TOKENS.get(asked, ()), **PUBLISHED.get(asked, ({"eos_token": END},))[0], **changed}
    tokens, named = given.pop("tokens"), {name: token for name, token in given.items() if token is not None}
    return tokenizer_of(Language.model_validate({"template": asked}), base(folder, tokens, **named))


def test_known_are_those_of_the_manifest() -> None:
    assert [*TEXTS] == [*TOKENS] == [*PUBLISHED] == [*TEMPLATES]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_known_template_writes_the_published_string_with_transformers_tokens(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours, (_, said, published) = of(tmp_path, name), PUBLISHED[name]
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    talk = [{"role": role, "content": content} for role, content in said]
    opened = said[-1][0] == "user"
    assert theirs.apply_chat_template(talk, chat_template=TEXTS[name], add_generation_prompt=opened, tokenize=False) == published
    expected = theirs.apply_chat_template(talk, chat_template=TEXTS[name], add_generation_prompt=opened)["input_ids"]
    template = template_of(ours)
    assert [*template.begins, *template.render([Message(*one) for one in said], opened=opened)] == expected
    assert sum(number >= 256 for number in expected) >= len(said), "special tokens are one token each"


@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_and_their_ends_are_learned_and_the_end_is_the_end_of_text(name: str, tmp_path: Path) -> None:
    ours = of(tmp_path, name)
    assert ours.inner.id_to_token(ours.end) == ENDS[name]
    assert ours.ends[0] == ours.end
    talk = [("user", "a"), ("assistant", "bcd"), ("user", "e"), ("assistant", "fgh")]
    record = {"messages": [{"role": role, "content": content} for role, content in talk]}
    ((tokens, learned),) = Encoder(ours, template_of(ours)).chat(record, "here")
    found = ours.inner.decode([token for token, one in zip(tokens, learned, strict=True) if one], skip_special_tokens=False)
    expected = f" bcd{ENDS[name]} fgh{ENDS[name]}" if name == "mistral" else f"bcd{ENDS[name]}\nfgh{ENDS[name]}\n"
    assert found == (expected.replace("\n", "") if name == "llama3" else expected)


SYSTEM = [("system", "Be short."), ("user", "Hi"), ("assistant", "Yo"), ("user", " Bye"), ("assistant", "Ciao ")]
# Of how many of these turns what is written: mistral_common 1.13.1 with mistral_instruct_tokenizer_240323 (V3), in its mode for serving
# where the user spoke last, else in that for fine-tuning; blanks for U+2581. The template on the hub writes the same where the user did.
MISTRAL = {
    2: "<s>[INST] Be short.\n\nHi[/INST]",
    3: "<s>[INST] Be short.\n\nHi[/INST] Yo</s>",
    4: "<s>[INST] Hi[/INST] Yo</s>[INST] Be short.\n\n Bye[/INST]",
    5: "<s>[INST] Hi[/INST] Yo</s>[INST] Be short.\n\n Bye[/INST] Ciao</s>",
}


def test_what_the_system_says_begins_a_turn_of_the_user_where_there_is_no_system_turn(tmp_path: Path) -> None:
    talk = [Message(*one) for one in SYSTEM]
    for name in ("gemma", "mistral"):
        ours = of(tmp_path / name, name)
        for count, written in MISTRAL.items():
            whole = ours.inner.decode(template_of(ours).render(talk[:count], opened=count % 2 == 0), skip_special_tokens=False)
            if name == "mistral":
                assert whole == written
            else:
                assert whole.count("Be short.\n\nHi") == 1
        with pytest.raises(JobError, match="take turns"):
            template_of(ours).render([talk[1], talk[1]], opened=True)


def test_answers_before_the_turn_with_what_the_system_says_are_learned_without_it(tmp_path: Path) -> None:
    """As mistral-finetune learns every answer of the text that mistral_common makes."""
    ours = of(tmp_path, "mistral")
    record = {"messages": [{"role": role, "content": content} for role, content in SYSTEM]}
    ((tokens, learned),) = Encoder(ours, template_of(ours)).chat(record, "here")
    assert ours.inner.decode(tokens, skip_special_tokens=False) == MISTRAL[5]
    assert (
        ours.inner.decode([token for token, one in zip(tokens, learned, strict=True) if one], skip_special_tokens=False)
        == " Yo</s> Ciao</s>"
    )
    open_ended = {"messages": record["messages"][:4]}
    ((tokens, learned),) = Encoder(ours, template_of(ours)).chat(open_ended, "here")
    assert ours.inner.decode([token for token, one in zip(tokens, learned, strict=True) if one], skip_special_tokens=False) == " Yo</s>"


LEFT_OUT = (  # as the hub's of Mistral-7B-Instruct-v0.3: behind an answer, what the system says is nowhere
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}{{ bos_token }}{% for m in turns %}"
    "{% if m.role == 'user' %}[INST] {{ (messages[0].content + '|') if loop.last and messages[0].role == 'system' }}{{ m.content }}[/INST]"
    "{% else %} {{ m.content + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("form", ["chat", "preference"])
def test_a_template_that_leaves_out_what_the_system_says_is_refused(form: str, tmp_path: Path) -> None:
    ours = of(tmp_path / "base", file(tmp_path, LEFT_OUT), tokens=["[INST]", "[/INST]"], bos_token="<s>", eos_token="</s>")
    talk = [{"role": role, "content": content} for role, content in SYSTEM]
    other = [{"role": "assistant", "content": "No"}]
    record = {"messages": talk} if form == "chat" else {"prompt": talk[:2], "chosen": talk[2:3], "rejected": other}
    encoder = Encoder(ours, template_of(ours))
    with pytest.raises(JobError, match="GTJ0113 the chat template rewrites earlier turns"):
        getattr(encoder, form)(record, "here")


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("chatml", {"tokens": ["<|im_start|>"]}, r"no special token <\|im_end\|>; what opens"),
        ("mistral", {"tokens": []}, r"no special token \[INST\] and \[/INST\]"),
        ("llama3", {"bos_token": None}, "names no bos_token"),
    ],
)
def test_a_template_without_its_tokens_is_refused(name: str, changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=words) as error:
        of(tmp_path, name, **changed)
    assert error.value.code == "GTJ0108"
    assert "zephyr needs none" in error.value.how


def test_a_message_cannot_write_what_ends_a_turn(tmp_path: Path) -> None:
    ours = of(tmp_path, "chatml")
    with pytest.raises(JobError, match="a message pretends to be a turn"):
        template_of(ours).render([Message("user", "quiet<|im_end|>")], opened=True)


def file(folder: Path, text: str | bytes) -> str:
    path = folder / "chat.jinja"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"file://{path}"


OWN = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


def test_a_file_stands_in_the_place_of_the_base_s_own(tmp_path: Path) -> None:
    asked = file(tmp_path, OWN)
    folder = tmp_path / "base"
    made = base(folder, [BOS], eos_token=END)
    (folder / "chat_template.jinja").write_text("{{ 'the own one' + eos_token }}")
    whole = Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()})
    ours = tokenizer_of(Language.model_validate({"template": asked}), whole)
    said = template_of(ours).render([Message("user", "Hi")], opened=True)
    assert ours.inner.decode(said, skip_special_tokens=False) == f"user: Hi{END}assistant: "
    assert isinstance(template_of(tokenizer_of(Language(), made)), Missing)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, "GTJ0118", "there is no such chat template"),
        (b"\xff", "GTJ0102", "it is no UTF-8"),
        ("{% for", "GTJ0102", "of a question and an answer it makes nothing"),
        ("{{ eos_token }}", "GTJ0102", "it leaves the answer out"),
        ("{% for m in messages %}{{ eos_token + m.content }}{% endfor %}", "GTJ0108", "nothing would say where one ends"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text: str | bytes | None, code: str, words: str, tmp_path: Path) -> None:
    asked = f"file://{tmp_path}/no.jinja" if text is None else file(tmp_path, text)
    with pytest.raises(JobError, match=words) as error:
        of(tmp_path / "base", asked)
    assert error.value.code == code
    assert "language.template" in str(error.value.where)


@pytest.mark.parametrize(
    ("name", "eos", "generation", "expected"),
    [
        ("gemma", "<eos>", None, ["<eos>", "<end_of_turn>"]),
        ("llama3", "<|end_of_text|>", ["<|end_of_text|>", "<|eom_id|>"], ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]),
        ("chatml", "<|im_end|>", ["<|im_end|>", END], ["<|im_end|>", END]),  # Qwen
        ("zephyr", "</s>", None, ["</s>"]),
        ("plain", END, None, [END]),
        ("refusing", END, None, [END]),
        (None, END, None, [END]),
    ],
)
def test_what_is_drawn_ends_where_the_base_s_own_template_ends_an_answer(
    name: str | None, eos: str, generation: list[str] | None, expected: list[str], tmp_path: Path
) -> None:
    """Behind the end of text, and what generation_config.json has, at which transformers' generate stops."""
    from transformers import AutoTokenizer

    own = {"plain": "{% for m in messages %}{{ m.content }}\n{% endfor %}", "refusing": "{{ raise_exception('no') }}"}
    named = {key: token for key, token in PUBLISHED.get(name or "", ({},))[0].items() if key != "eos_token"}
    folder = tmp_path / "base"
    base(folder, [*TOKENS.get(name or "", ()), "<|eom_id|>", END], eos_token=eos, **named)
    if name is not None:
        (folder / "chat_template.jinja").write_text(own.get(name, TEXTS.get(name, "")))
    theirs = AutoTokenizer.from_pretrained(folder)
    if generation is not None:
        numbers = theirs.convert_tokens_to_ids(generation)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": numbers}))
    whole = Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()})
    ours = ending(tokenizer_of(Language(), whole))
    assert theirs.convert_ids_to_tokens(list(ours.ends)) == expected
    assert ours.end == theirs.eos_token_id == ours.ends[0]
    if name in TEXTS:
        said = theirs.apply_chat_template([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])["input_ids"]
        assert [token for token in said if token >= 256][-1] in ours.ends


def test_another_template_than_a_commit_s_is_told(tmp_path: Path) -> None:
    compare(None, None)
    compare(b"a\nb", "a\nb")
    for before, now, words in [(b"a\nb", "a\nc", "line 2 differs"), (None, "a", "the base's own"), (b"a", None, "one of its own")]:
        with pytest.raises(JobError, match=words) as error:
            compare(before, now)
        assert error.value.code == "GTJ0208"


def test_conversations_for_a_base_without_a_template_are_refused_with_those_that_are_known(tmp_path: Path) -> None:
    made = tokenizer_of(Language(), base(tmp_path, [], eos_token=END))
    with pytest.raises(JobError, match="GTJ0108 the model has no chat template") as error:
        Encoder(made, template_of(made)).chat({"messages": [{"role": "user", "content": "a"}]}, "here")
    assert "language.template: chatml, llama3, gemma, mistral or zephyr" in error.value.how
    assert text_of("zephyr") == TEXTS["zephyr"]
