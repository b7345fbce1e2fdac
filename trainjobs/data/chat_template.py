"""The chat template that a trained model comes with: what it has learned a conversation to look like, and how conversations become tokens
when it is trained further. Rendered by transformers, in jinja2's sandbox.

Its special tokens are the model's own, so a message whose text is one would open or end a turn of its own: such a record is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trainjobs.api.errors import JobError, printable
from trainjobs.data.conversation import Message, Template, Turns
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.tokens import Tokenizer

FILE = "chat_template.jinja"


def template_of(tokenizer: Tokenizer) -> Template:
    """That of a base which has one, else ours."""
    if isinstance(tokenizer, PretrainedTokenizer):
        text = _text(tokenizer)
        if text is not None:
            return ChatTemplate(tokenizer, text)
    return Turns(tokenizer)


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
        from transformers.utils.chat_template_utils import render_jinja_template

        special = self.tokenizer.base.json("tokenizer_config.json")
        for number, message in enumerate(messages, 1):
            for token in self._specials:
                if token in message.content:
                    why = f"message {number} holds {printable(token)}, which would end or open a turn of its own"
                    raise JobError("GTJ0113", "a message pretends to be a turn", why=why, how="mend or remove the record")
        talk = [{"role": message.role, "content": message.content} for message in messages]
        names = {name: _content(special.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        named = {name: text for name, text in names.items() if text is not None}
        try:
            rendered = render_jinja_template([talk], chat_template=self.text, add_generation_prompt=opened, **named)[0][0]
        except Exception as error:  # the template's own words, by jinja's `raise_exception`
            where, how = f"{self.tokenizer.base.uri}", "write the conversation as the model's template wants it"
            raise JobError("GTJ0113", "the model's chat template refuses a conversation", where=where, why=str(error), how=how) from error
        return list(self._inner.encode(rendered, add_special_tokens=False).ids)

    @property
    def _specials(self) -> list[str]:
        return [token.content for token in self._inner.get_added_tokens_decoder().values() if token.special]


def _text(tokenizer: PretrainedTokenizer) -> str | None:
    base = tokenizer.base
    if FILE in base.files:
        return (base.folder / FILE).read_text(encoding="utf-8")
    found = base.json("tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((one.get("template") for one in found if isinstance(one, dict) and one.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def _content(value: Any) -> str | None:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None
