"""What records for a language model look like, recognised by their columns. No torch here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from trainjobs.api.errors import JobError
from trainjobs.api.language import Language
from trainjobs.api.problem import listed

Format = Literal["text", "pair", "chat", "preference", "prompts", "masked", "spans", "translation", "rewriting"]
TWO: tuple[Format, ...] = ("preference", "translation", "rewriting")  # formats of which a record is two sequences
COLUMN = "column."  # begins the name of a column that is carried for reward functions


@dataclass(frozen=True)
class Shape:
    """A format's name among people, the roles that it needs, the one that it may have, and the columns as people write them."""

    words: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    columns: str


SHAPES: dict[Format, Shape] = {
    "text": Shape("text", ("text",), (), "text"),
    "chat": Shape("chat", ("messages",), (), "messages (of role and content), or conversations (of from and value)"),
    "pair": Shape("prompt and completion", ("prompt", "completion"), ("input",), "prompt + completion, or instruction (+ input) + output"),
    "preference": Shape("preference", ("chosen", "rejected"), ("prompt",), "(prompt +) chosen + rejected"),
    "prompts": Shape("prompts", ("prompt",), ("input",), "prompt"),
    "masked": Shape("text", ("text",), (), "text"),
    "spans": Shape("text", ("text",), (), "text"),
    "translation": Shape("source and target", ("source", "target"), (), "source + target"),
    "rewriting": Shape("prompt and completion", ("prompt", "completion"), ("input",), "prompt + completion"),
}
LEARNS: Mapping[str, tuple[Format, ...]] = {
    "sft": ("text", "chat", "pair"),
    "reward": ("preference",),
    "dpo": ("preference",),
    "grpo": ("prompts",),
    "ppo": ("prompts",),
    "distill": ("text", "chat", "pair"),
}
ASKED: Mapping[str, tuple[Format, ...]] = {"masked": ("masked",), "seq2seq": ("translation", "rewriting")}  # by the tasks of one method


def learned_by(language: Language) -> tuple[Format, ...]:
    if language.span_corruption is not None:
        return ("spans",)
    return ASKED.get(language.task, LEARNS[language.method])


def format_of(language: Language, found: Mapping[str, str], asked: Collection[str] = ()) -> tuple[Format, dict[str, str]]:
    """The format of columns, given as role to column, and the roles that it uses. Of several, the one of which the manifest has `asked` for
    a role, else the first. JobError GTJ0113 where the method learns from none of them."""
    known = [name for name in learned_by(language) if all(role in found for role in SHAPES[name].needs)]
    preferred = [name for name in known if set(SHAPES[name].needs) & {*asked}]
    if not known:
        raise none(language, found)
    name = (preferred or known)[0]
    shape = SHAPES[name]
    return name, {role: found[role] for role in (*shape.needs, *shape.may) if role in found}


def none(language: Language, found: Mapping[str, str]) -> JobError:
    """GTJ0113: the columns are of no format that the method or the task learns from; the nearest is named."""
    formats = learned_by(language)
    which = f"method: {language.method}" if language.task == "causal" else f"task: {language.task}"
    lacking = {name: [role for role in SHAPES[name].needs if role not in found] for name in formats}
    near = min(formats, key=lambda name: (len(lacking[name]) == len(SHAPES[name].needs), len(lacking[name])))
    columns = listed((f"{column} ({role})" for role, column in found.items()), "and") or "no column that is known by its name"
    why = f"there is {columns}; language.{which} learns from " + "; ".join(
        f"{SHAPES[name].words}: {SHAPES[name].columns}" for name in formats
    )
    if language.task == "seq2seq" and "text" in found:
        why += "; language.spanCorruption: text"
    how = f"nearest is {SHAPES[near].words}: name {listed((f'data.columns.{role}' for role in lacking[near]), 'and')}"
    return JobError("GTJ0113", "the data has none of the formats of the method", where="data.source", why=why, how=how)
