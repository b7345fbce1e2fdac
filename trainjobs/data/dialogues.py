"""A language model's records, found: where they are, of which format, and how to go through them. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainjobs.api.job import Spec
from trainjobs.data import stdlib
from trainjobs.data.dataset import Dataset
from trainjobs.data.documents import settings
from trainjobs.data.formats import COLUMN, Format, format_of
from trainjobs.data.places.place import Shelf
from trainjobs.data.sequences import Record

FORMS: dict[str, Format] = {"stdlib-pairs": "pair", "stdlib-chat": "chat", "stdlib-preferences": "preference"}


@dataclass(frozen=True)
class Dialogues:
    """`read` goes through the records in order; `apart` where splits say which of them are held out."""

    key: str
    where: str
    form: Format
    read: Callable[[], Iterator[Record]]
    apart: bool = False

    def texts(self) -> Iterator[str]:
        """All that a tokenizer is trained on: what is said in records that are not of a split that is held out."""
        for _, _, values, apart in self.read():
            if not apart:
                for role, value in values.items():
                    if not role.startswith(COLUMN):
                        yield from _said(value)


def of_builtin(spec: Spec, kind: str) -> Dialogues:
    form = FORMS[kind]
    if spec.language and spec.language.rewarded:
        form = "prompts"
    if spec.language and spec.language.task == "seq2seq":
        form = "rewriting"
    records: Callable[[], Iterator[Record]] = lambda: stdlib.records(kind)  # noqa: E731
    if form == "prompts":
        records = lambda: (  # noqa: E731
            (
                name,
                where,
                {"prompt": values["prompt"], **{f"{COLUMN}{key}": value for key, value in values.items() if key != "prompt"}},
                held,
            )
            for name, where, values, held in stdlib.records(kind)
        )
    return Dialogues(stdlib.key(kind), f"builtin:{kind}", form, records)


def of(spec: Spec, dataset: Dataset, shelf: Shelf) -> Dialogues:
    form, _ = format_of(settings(spec), {role: column for role, column in dataset.roles.items() if not role.startswith(COLUMN)})
    return Dialogues(dataset.key, dataset.found.uri, form, lambda: dataset.documents(shelf), dataset.apart is not None)


def _said(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (str(turn.get("content", turn.get("value", ""))) for turn in value if isinstance(turn, dict))
