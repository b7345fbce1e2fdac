"""Conversations: who says what, as records write it, and how that becomes tokens.

A template turns messages into tokens. Ours needs no tokens but those of the tokenizer: every message is its role, a line break, its
content without blanks around it, and the end-of-text token, which no text encodes to, so that no content can pretend to be a turn:

    user\\nHello<end>assistant\\nHi!<end>

What an answer's tokens are is found by rendering: the conversation before it, with the words that open an answer, must be the beginning
of the conversation with it, token for token, and what is behind that is the answer and its end. So it holds for any template, also for
those that do not say which of their words are generated, which is nearly all. Where a template has what the system says in the last turn
of the user (Mistral's V3), answers before that turn are read without it: there it is the conversation without it that is the beginning,
as Mistral's own fine-tuning learns them. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

from trainjobs.api.errors import JobError, printable
from trainjobs.data.tokens import Tokenizer

# Names of roles, those of ShareGPT too.
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool", "human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Message:
    role: str
    content: str


class Template(Protocol):
    @property
    def begins(self) -> list[int]:
        """The tokens that stand before a conversation and that `render` leaves out."""
        ...

    def render(self, messages: Sequence[Message], *, opened: bool) -> list[int]:
        """The tokens of a conversation, without what begins a text; `opened`: and then those that open an answer."""
        ...

    def laid(self, messages: Sequence[Message]) -> tuple[list[int], dict[int, tuple[int, int]]] | None:
        """(render(messages), of each answer by its message's number where it and its end lie), encoded once. None where it takes an
        encoding of each beginning to know, or to say what is wrong."""
        ...


@dataclass(frozen=True)
class Turns:
    """The template of tokenizers that come without one."""

    tokenizer: Tokenizer

    @property
    def begins(self) -> list[int]:
        return list(self.tokenizer.before) or [self.tokenizer.end]

    def render(self, messages: Sequence[Message], *, opened: bool) -> list[int]:
        return self.laid(messages)[0] + (self.tokenizer.encode("assistant\n") if opened else [])

    def laid(self, messages: Sequence[Message]) -> tuple[list[int], dict[int, tuple[int, int]]]:
        """Every part is encoded by itself, so a beginning of a conversation is a beginning of its tokens."""
        found: list[int] = []
        spans = {}
        for number, message in enumerate(messages):
            found += self.tokenizer.encode(f"{message.role}\n")
            start = len(found)
            found += [*self.tokenizer.encode(message.content.strip()), self.tokenizer.end]
            if message.role == "assistant":
                spans[number] = start, len(found)
        return found, spans


def messages(value: Any, role: str, where: str) -> tuple[Message, ...]:
    """A list of {role, content}, or of {from, value}. JobError GTJ0113 for anything else, naming the message."""
    found = []
    for number, turn in enumerate(value if isinstance(value, list) and value else [None]):
        speaker = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        if not isinstance(content, str) or speaker not in ROLES:
            shown = printable(repr(value if turn is None else turn)[:60])
            why = f"message {number + 1} is {shown}" if turn is not None else f"it is {shown}"
            if isinstance(content, str) and isinstance(speaker, str):
                why += f", and nobody is called {printable(speaker[:40])}"
            how = 'write a text, or a list of {"role": "user", "content": "..."} with the roles ' + ", ".join(list(ROLES)[:4])
            raise JobError("GTJ0113", f"the record has no text for {role}", where=where, why=why, how=how)
        found.append(Message(ROLES[speaker], content))
    return tuple(found)


def answers(template: Template, talk: Sequence[Message], where: str, *, last: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
    """(the tokens of the conversation, (start, stop) of the assistant's answers and their ends among them, or of the `last` one alone).

    JobError GTJ0113 where a beginning of the conversation is rendered otherwise than the whole, with the first token that differs.
    """
    numbers = [number for number, message in enumerate(talk) if message.role == "assistant"]
    numbers = numbers[-1:] if last else numbers
    if (laid := template.laid(talk)) is not None:
        tokens, spans = laid
        return tokens, [spans[number] for number in numbers]
    return by_beginnings(template, talk, where, numbers)


def by_beginnings(
    template: Template, talk: Sequence[Message], where: str, numbers: Sequence[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """The same for any template, of the messages of these `numbers`: by an encoding of what is before each, and of what is up to it."""
    whole, found = template.render(talk, opened=False), []
    for number in numbers:
        before, upto = _around(template, talk, number)
        later = talk[0].role == "system" and any(message.role == "user" for message in talk[number + 1 :])
        if later and whole[: len(before)] != before:
            without = _around(template, talk[1:], number - 1)
            if all(whole[: len(part)] == part for part in without):
                before, upto = without
        begins(whole, before, f"what opens message {number + 1}", where)
        begins(whole, upto, f"the conversation up to message {number + 1}", where)
        found.append((len(before), len(upto)))
    return whole, found


def _around(template: Template, talk: Sequence[Message], number: int) -> tuple[list[int], list[int]]:
    """What is before the answer of that number, and what is up to it."""
    return template.render(talk[:number], opened=True), template.render(talk[: number + 1], opened=False)


def begins(whole: list[int], part: list[int], what: str, where: str) -> None:
    """See that a conversation begins with that part. JobError GTJ0113 with the first token that differs."""
    if whole[: len(part)] != part:
        at = next(at for at, (one, other) in enumerate(zip_longest(whole[: len(part)], part)) if one != other)
        there = whole[at] if at < len(whole) else "missing"
        why = f"{what} is no beginning of the whole: token {at + 1} is {part[at]} in the one, and {there} in the other"
        how = "set language.loss.tokens to completion, or use a template that leaves earlier turns as they are"
        raise JobError("GTJ0113", "the chat template rewrites earlier turns", where=where, why=why, how=how)
