"""The chat template that a trained model comes with: what it has learned a conversation to look like, and how conversations become tokens
when it is trained further. Rendered by transformers, in jinja2's sandbox.

Its special tokens are the model's own, so a message whose text is one would open or end a turn of its own: such a record is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trainjobs.api.errors import JobError, printable
from trainjobs.api.language import TEMPLATES
from trainjobs.api.problem import listed
from trainjobs.data.conversation import Message, Template, Turns
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.tokens import Tokenizer

FILE = "chat_template.jinja"
HOW = f"name one that it is to learn in language.template: {listed(TEMPLATES)}, or a file of jinja"
ANSWER = "Forty-two."
_SHORT = 64  # characters


def template_of(tokenizer: Tokenizer, how: str = HOW) -> Template:
    """That which the job names, else that of the base; of a tokenizer of our own ours. `how` to mend it is told where a base has none, and
    a conversation is to be rendered."""
    if not isinstance(tokenizer, PretrainedTokenizer):
        return Turns(tokenizer)
    text = tokenizer.template if tokenizer.template is not None else own(tokenizer.base)
    return ChatTemplate(tokenizer, text) if text is not None else Missing(tokenizer.base.uri, how)


@dataclass(frozen=True)
class Missing:
    """In the place of a template: which tokens a base would read as turns nobody knows, and any that are made up would be learned."""

    uri: str
    how: str

    @property
    def begins(self) -> list[int]:
        return []

    def render(self, messages: Sequence[Message], *, opened: bool) -> list[int]:
        """JobError GTJ0108."""
        raise self.error

    def laid(self, messages: Sequence[Message]) -> None:
        raise self.error

    @property
    def error(self) -> JobError:
        why = "it has neither chat_template.jinja nor a chat_template in tokenizer_config.json"
        return JobError("GTJ0108", "the model has no chat template, and the data is conversations", where=self.uri, why=why, how=self.how)


@dataclass(frozen=True)
class ChatTemplate:
    """`text` is jinja."""

    tokenizer: PretrainedTokenizer
    text: str
    _inner: Any = field(init=False)

    def __post_init__(self) -> None:
        inner = copy.deepcopy(self.tokenizer.inner)
        inner.encode_special_tokens = False  # the template's own are what they say
        object.__setattr__(self, "_inner", inner)

    @property
    def begins(self) -> list[int]:
        """The template says itself how a conversation begins."""
        return []

    def render(self, messages: Sequence[Message], *, opened: bool) -> list[int]:
        """JobError GTJ0113 for what the template refuses, and for a message that holds a special token."""
        return list(self.encoded(self.rendered(messages, opened=opened)).ids)

    def laid(self, messages: Sequence[Message]) -> tuple[list[int], dict[int, tuple[int, int]]] | None:
        """A text is cut at special tokens before any of it is encoded: what is before one has no say in the tokens behind it. So a
        beginning of the text has the tokens of the whole up to its last special token, and what is behind that is encoded by itself."""
        if not self._cuts:
            return None
        text = self.rendered(messages, opened=False)
        whole = self.encoded(text)
        ids, spans = list(whole.ids), {}
        for number, message in enumerate(messages):
            if message.role == "assistant":
                last = number + 1 == len(messages)
                start = self._ends(self.rendered(messages[:number], opened=True), text, whole, ids)
                stop = len(ids) if last else self._ends(self.rendered(messages[: number + 1], opened=False), text, whole, ids)
                if start is None or stop is None:
                    return None
                spans[number] = start, stop
        return ids, spans

    def _ends(self, part: str, text: str, whole: Any, ids: list[int]) -> int | None:
        """How many tokens a beginning of the text has; None where it is none, or where it has no special token to go by."""
        at = whole.char_to_token(len(part) - 1) if part and text.startswith(part) else None
        while at is not None and at >= 0 and (ids[at] not in self._cuts or whole.token_to_chars(at)[1] > len(part)):
            at -= 1
        if at is None or at < 0:
            return None
        first, behind = whole.token_to_chars(at)
        if part[first:behind] != self._cuts[ids[at]]:
            return None
        tail = self._tails.get(part[first:])
        if tail is None:
            tail = list(self.encoded(part[first:]).ids)
            if len(part) - first <= _SHORT:  # what opens and ends an answer is the same every time
                self._tails[part[first:]] = tail
        return at + len(tail) if ids[at : at + len(tail)] == tail else None

    def rendered(self, messages: Sequence[Message], *, opened: bool) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        for number, message in enumerate(messages, 1):
            for token in self.specials:
                if token in message.content:
                    why = f"message {number} holds {printable(token)}, which would end or open a turn of its own"
                    raise JobError("GTJ0113", "a message pretends to be a turn", why=why, how="mend or remove the record")
        talk = [{"role": message.role, "content": message.content} for message in messages]
        try:
            rendered = render_jinja_template([talk], chat_template=self.text, add_generation_prompt=opened, **self.named)[0][0]
        except Exception as error:  # the template's own words, by jinja's `raise_exception`
            where, how = f"{self.tokenizer.base.uri}", "write the conversation as the model's template wants it"
            raise JobError("GTJ0113", "the model's chat template refuses a conversation", where=where, why=str(error), how=how) from error
        return str(rendered)

    def answered(self) -> str:
        """A question and ANSWER to it, as text. JobError GTJ0113."""
        return self.rendered([Message("user", "What is six times seven?"), Message("assistant", ANSWER)], opened=False)

    def ending(self, text: str) -> int | None:
        """The special token that ends ANSWER in what is `answered`; None where it is not there, or none stands behind it."""
        behind = text.rfind(ANSWER) + len(ANSWER) if ANSWER in text else len(text)
        encoded, special = self.encoded(text), self.tokenizer.special
        ends = (one for one, (start, _) in zip(encoded.ids, encoded.offsets, strict=True) if start >= behind and one in special)
        return next(ends, None)

    def encoded(self, text: str) -> Any:
        return self._inner.encode(text, add_special_tokens=False)

    @cached_property
    def named(self) -> dict[str, str]:
        """The special tokens that a template may name."""
        special = self.tokenizer.base.json("tokenizer_config.json")
        names = {name: _content(special.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        return {name: text for name, text in names.items() if text is not None}

    @cached_property
    def specials(self) -> list[str]:
        return [token.content for token in self._inner.get_added_tokens_decoder().values() if token.special]

    @cached_property
    def _cuts(self) -> dict[int, str]:
        """Special tokens that are cut out of a text as they stand, without what is around them and whatever that is."""
        return {
            number: token.content
            for number, token in self._inner.get_added_tokens_decoder().items()
            if token.special and not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        }

    @cached_property
    def _tails(self) -> dict[str, list[int]]:
        return {}


def own(base: Pretrained) -> str | None:
    """The template that a base comes with."""
    if FILE in base.files:
        return (base.folder / FILE).read_text(encoding="utf-8")
    found = base.json("tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((one.get("template") for one in found if isinstance(one, dict) and one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _content(value: Any) -> str | None:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None
