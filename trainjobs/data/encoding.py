"""A record as sequences of tokens, each with which of its tokens are learned. No torch here.

Every sequence begins with the end-of-text token, as whatever follows a document does; it is nobody's target. A completion ends with one,
which is learned: a model that never saw it would never stop. What is learned goes by position, never by token, so an end that is also
used to fill up is learned all the same. A prompt's tokens are those of the prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainjobs.api.errors import JobError, printable
from trainjobs.api.problem import listed
from trainjobs.data.conversation import Message, Template, answers, begins, messages
from trainjobs.data.formats import SHAPES, Format
from trainjobs.data.tokens import Tokenizer

BORDER = 16  # characters

Sequence = tuple[list[int], list[bool]]  # tokens; whether each is learned


@dataclass
class Encoder:
    """`on` is language.loss.tokens; `room` how many tokens a piece of a text may have whose tokens are hidden. `joined` counts prompts
    whose last tokens would be others together with their completion."""

    tokenizer: Tokenizer
    template: Template
    on: str = "auto"
    room: int = 1 << 31
    joined: int = field(default=0, init=False)
    _known: dict[str, list[int]] = field(default_factory=dict, init=False)

    def ahead(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Encodes the texts of these records together, on all cores, and forgets those before; so `encode` of each need not."""
        texts = dict.fromkeys(text for values in rows for text in _texts(values))
        self._known = dict(zip(texts, (row.tolist() for row in self.tokenizer.arrays(list(texts))), strict=True))

    def text(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        if self.on in ("completion", "assistant"):
            how = "take language.loss.tokens out, or name the columns of prompt and completion"
            raise JobError("GTJ0108", f"loss.tokens: {self.on}, and the data is plain text", where="language.loss.tokens", how=how)
        tokens = [*self._begin, *self._encode(_text(values["text"], "text", where)), self.tokenizer.end]
        before = len(self._begin)
        return [(tokens, [*[False] * before, *[True] * (len(tokens) - before)])]

    def pair(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        prompt, completion = self._prompt(values, where), values["completion"]
        answer = self._answer(values.get("prompt"), completion, "completion", where)
        return [self._learned(prompt, answer)]

    def chat(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        talk = messages(values["messages"], "messages", where)
        if self.on == "all":
            tokens = self.template.render(talk, opened=False)
            learned = [True] * len(tokens)
        else:
            tokens, spans = answers(self.template, talk, where, last=self.on == "completion")
            learned = [False] * len(tokens)
            for start, stop in spans:
                learned[start:stop] = [True] * (stop - start)
        begins = self.template.begins
        return [([*begins, *tokens], [*[False] * len(begins), *learned])]

    def preference(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        """The chosen one, then the rejected one. Without a prompt, it is what both begin with."""
        chosen, rejected = values["chosen"], values["rejected"]
        if chosen == rejected:
            how = "remove the record: nothing can be learned from it"
            raise JobError("GTJ0113", "the chosen answer is the rejected one", where=where, how=how)
        if values.get("prompt") is None:
            return self._common(chosen, rejected, where)
        prompt = self._prompt(values, where)
        both = (self._answer(values["prompt"], answer, role, where) for role, answer in (("chosen", chosen), ("rejected", rejected)))
        return [self._learned(prompt, answer) for answer in both]

    def prompts(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        prompt = self._prompt(values, where)
        return [(prompt, [False] * len(prompt))]

    def masked(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        """Pieces of the text, each between what begins and what ends one. Learned are those tokens that may be masked: all of the text."""
        tokens = self._encode(_text(values["text"], "text", where))
        each = max(1, self.room - len(self._begin) - 1)
        parts = [tokens[at : at + each] for at in range(0, max(1, len(tokens)), each)]
        before = [False] * len(self._begin)
        return [([*self._begin, *part, self.tokenizer.end], [*before, *[True] * len(part), False]) for part in parts]

    def spans(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        """Pieces of the text, of which spans are hidden, with nothing around them. None but that of a whole text is a single token."""
        tokens = self._encode(_text(values["text"], "text", where))
        starts = list(range(0, max(1, len(tokens)), self.room))
        if starts[-1] and len(tokens) - starts[-1] == 1:
            starts[-1] -= 1
        stops = [*starts[1:], len(tokens)]
        return [(tokens[start:stop], [True] * (stop - start)) for start, stop in zip(starts, stops, strict=True)]

    def translation(self, values: Mapping[str, Any], where: str) -> list[Sequence]:
        """What is read, of which nothing is learned, and what is to be written, all of which is; each as the model expects a text."""
        role, other = ("source", "target") if "source" in values else ("prompt", "completion")
        read, more = _text(values[role], role, where), values.get("input")
        if more is not None and _text(more, "input", where):
            read = f"{read}\n{more}"
        begin = list(self.tokenizer.before)
        first, second = ([*begin, *self._encode(text), self.tokenizer.end] for text in (read, _text(values[other], other, where)))
        return [(first, [False] * len(first)), (second, [True] * len(second))]

    def _encode(self, text: str) -> list[int]:
        known = self._known.get(text)
        return self.tokenizer.encode(text) if known is None else known

    @property
    def _begin(self) -> list[int]:
        return list(self.tokenizer.before) or [self.tokenizer.end]

    def _prompt(self, values: Mapping[str, Any], where: str) -> list[int]:
        value, more = values["prompt"], values.get("input")
        if isinstance(value, list):
            return [*self.template.begins, *self.template.render(messages(value, "prompt", where), opened=True)]
        text = _text(value, "prompt", where)
        if more is not None and _text(more, "input", where):
            text = f"{text}\n{more}"
        return [*self._begin, *self._encode(text)]

    def _answer(self, prompt: Any, value: Any, role: str, where: str) -> list[int]:
        """The tokens of an answer to a prompt, its end included."""
        if isinstance(value, list):
            asked = messages(prompt, "prompt", where) if isinstance(prompt, list) else (Message("user", _text(prompt, "prompt", where)),)
            return self._behind(self.template.render(asked, opened=True), (*asked, *messages(value, role, where)), where)
        text = _text(value, role, where)
        if isinstance(prompt, list):
            return self._answer(prompt, [{"role": "assistant", "content": text}], role, where)
        tokens = self._encode(text)
        end, begin = _border(prompt, text)
        if self._encode(end + begin) != [*self._encode(end), *self._encode(begin)]:
            self.joined += 1
        return [*tokens, self.tokenizer.end]

    def _behind(self, prompt: list[int], talk: tuple[Message, ...], where: str) -> list[int]:
        """The tokens of a conversation behind those of its prompt. JobError GTJ0113 where it does not begin with them."""
        whole = self.template.render(talk, opened=False)
        begins(whole, prompt, "the prompt", where)
        return whole[len(prompt) :]

    def _learned(self, prompt: list[int], answer: list[int]) -> Sequence:
        marks = [self.on == "all"] * len(prompt) + [True] * len(answer)
        marks[:1] = [False]
        return [*prompt, *answer], marks

    def _common(self, chosen: Any, rejected: Any, where: str) -> list[Sequence]:
        """Of two conversations all turns that are the same; of two texts what both begin with, up to a blank."""
        if isinstance(chosen, list) != isinstance(rejected, list):
            raise JobError("GTJ0113", "one answer is a text, and the other a list of messages", where=where, how="write both alike")
        if isinstance(chosen, list):
            both = messages(chosen, "chosen", where), messages(rejected, "rejected", where)
            same = _alike(*both)
            same = min(same, len(both[0]) - 1, len(both[1]) - 1)
            before = self.template.render(both[0][:same], opened=True)
            return [self._learned([*self.template.begins, *before], self._behind(before, talk, where)) for talk in both]
        texts = _text(chosen, "chosen", where), _text(rejected, "rejected", where)
        shared = texts[0][: _alike(*texts)]
        shared = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
        prompt = [*self._begin, *self._encode(shared)]
        return [self._learned(prompt, [*self._encode(text[len(shared) :]), self.tokenizer.end]) for text in texts]


def _alike(one: Collection[Any], other: Collection[Any]) -> int:
    """How many items both begin with."""
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), min(len(one), len(other)))


def encode(encoder: Encoder, form: Format) -> Callable[[Mapping[str, Any], str], list[Sequence]]:
    """What makes sequences of a record's values, and is told where the record is. JobErrors GTJ0113 name that."""
    one: Callable[[Mapping[str, Any], str], list[Sequence]] = {
        "text": encoder.text,
        "pair": encoder.pair,
        "chat": encoder.chat,
        "preference": encoder.preference,
        "prompts": encoder.prompts,
        "masked": encoder.masked,
        "spans": encoder.spans,
        "translation": encoder.translation,
        "rewriting": encoder.translation,
    }[form]

    def told(values: Mapping[str, Any], where: str) -> list[Sequence]:
        needs = SHAPES[form].needs
        if lacking := [role for role in needs if values.get(role) is None]:
            given = listed([role for role in (*needs, *SHAPES[form].may) if values.get(role) is not None], "and") or "none of them"
            why = f"there is none: it has {given}, where the records before it, or the manifest, promise {listed(needs, 'and')}"
            how = "mend or remove the record, leave it out by data.where, or name the columns of one format in data.columns"
            raise JobError("GTJ0113", f"the record has no text for {lacking[0]}", where=where, why=why, how=how)
        try:
            return one(values, where)
        except JobError as error:  # of a chat template, which does not know whose conversation it renders
            if error.code != "GTJ0113" or error.where == where:
                raise
            why = f"{error.why}; the template is that of {error.where}" if error.where else error.why
            raise JobError(error.code, error.what, where=where, why=why, how=error.how) from error

    return told


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    """What is encoded of a record whose roles are texts."""
    prompt, more = values.get("prompt"), values.get("input")
    said = [text for role in ("completion", "chosen", "rejected") if isinstance(text := values.get(role), str)]
    yield from (text for role in ("text", "source", "target") if isinstance(text := values.get(role), str))
    if isinstance(prompt, str):
        yield f"{prompt}\n{more}" if isinstance(more, str) and more else prompt
        for end, begin in (_border(prompt, text) for text in said):
            yield from (end, begin, end + begin)
    if not isinstance(prompt, list):  # behind messages it is a message
        yield from said


def _border(prompt: str, said: str) -> tuple[str, str]:
    """Of a prompt and its completion what is near where they meet, which tells whether a token would span both: encoding the whole of
    them together takes as long as all the rest."""
    return prompt[-BORDER:], said[:BORDER]


def _text(value: Any, role: str, where: str) -> str:
    if isinstance(value, str):
        return value
    shown = "there is none" if value is None else f"it is {printable(repr(value)[:60])}"
    how = "mend or remove the record, or leave it out by data.where"
    raise JobError("GTJ0113", f"the record has no text for {role}", where=where, why=shown, how=how)
