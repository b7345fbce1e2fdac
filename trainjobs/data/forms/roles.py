"""What the columns of the data stand for, and which numbers the classes of a label get."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from trainjobs.api.data import ROLES, Columns
from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.data.forms.records import Kind, Value
from trainjobs.data.forms.values import WORDS, shown

FITS: Mapping[str, tuple[Kind, ...]] = {
    "image": ("image", "bytes"),
    "label": ("integer", "text", "boolean"),
    "messages": ("list",),
    "prompt": ("text", "list"),
    "completion": ("text", "list"),
    "chosen": ("text", "list"),
    "rejected": ("text", "list"),
}
_TEXT: tuple[Kind, ...] = ("text",)
OF_IMAGES = ("image", "caption", "label")
OF_TEXT = ("text", "prompt", "input", "completion", "messages", "chosen", "rejected", "source", "target", "label")
_SHOWN = 40  # columns that a message lists


def roles(columns: Mapping[str, Kind], asked: Columns, text_field: str, family: str) -> dict[str, str]:
    """The column of each role: those that the manifest names, and of the others that the family can use the usual names, in their order,
    where the kind fits; a field of a WebDataset's json by its own name. No column has two roles unless the manifest says so.

    JobError GTJ0102 for a column that is not there or is of another kind; GTJ0108 where a language model finds no text, or a family of
    images no image.
    """
    named = {role: column for role in ROLES if (column := getattr(asked, role)) is not None}
    if "text" not in named and text_field != "text":
        named["text"] = text_field
    found: dict[str, str] = {}
    for role, column in named.items():
        where = "data.text.field" if role == "text" and asked.text is None else f"data.columns.{role}"
        found[role] = _named(columns, role, column, where)
    images = family != "language" and (family != "custom" or "image" in (*found, *_usual(columns, ("image",), found)))
    found |= _usual(columns, OF_IMAGES if images else OF_TEXT, found)
    found = {role: found[role] for role in ROLES if role in found}
    answered = {"messages", "completion", "chosen", "prompt", "target"} & found.keys()  # what of these goes together, formats.py says
    needed = ("" if answered else "text") if family == "language" else "image" if images else ""
    if needed and needed not in found:
        raise _without(columns, found, needed, family)
    return found


def known(columns: Collection[str], name: str, where: str) -> JobError:
    """The error for a column that is not there."""
    there = [*columns][:_SHOWN]
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    why = f"there are {', '.join(there)}{more}" if there else "there is no column at all"
    how = did_you_mean(name, columns) or "name one of those that are there"
    return JobError("GTJ0102", f"the data has no column {name}", where=where, why=why, how=how)


def _named(columns: Mapping[str, Kind], role: str, column: str, where: str) -> str:
    if column not in columns:
        raise known(columns, column, where)
    if columns[column] not in FITS.get(role, _TEXT):
        fitting = [name for name, kind in columns.items() if kind in FITS.get(role, _TEXT)]
        why = f"it holds {WORDS[columns[column]]}, and {role} is {listed(WORDS[kind] for kind in FITS.get(role, _TEXT))}"
        how = f"that would be {listed(fitting[:8])}" if fitting else "no column holds that"
        raise JobError("GTJ0102", f"the column {column} cannot be {role}", where=where, why=why, how=how)
    return column


def _usual(columns: Mapping[str, Kind], wanted: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    usual: dict[str, str] = {}
    plain = {name.lower(): name for name in reversed(list(columns))}
    for role in wanted:
        if role in found:
            continue
        taken = {*found.values(), *usual.values()}
        for name in (*ROLES[role], *(f"{record}.{name}" for record in ("json", "jsn") for name in ROLES[role])):
            column = plain.get(name)
            if column is not None and column not in taken and columns[column] in FITS.get(role, _TEXT):
                usual[role] = column
                break
    return usual


def _without(columns: Mapping[str, Kind], found: Mapping[str, str], needed: str, family: str) -> JobError:
    there = f"its columns are {', '.join(f'{name} ({WORDS[kind]})' for name, kind in [*columns.items()][:_SHOWN]) or 'none'}"
    others = f"; found {', '.join(f'{role} in {column}' for role, column in found.items())}" if found else ""
    fitting = [name for name, kind in columns.items() if kind in FITS.get(needed, _TEXT)]
    how = f"set data.columns.{needed} to {listed(fitting[:8])}" if fitting else f"choose data that holds {needed}s"
    what = f"a {family} job learns from {'text' if needed == 'text' else 'images'}, and the data has none that is known by its name"
    return JobError("GTJ0108", what, where="data.source", why=there + others, how=how)


@dataclass(frozen=True)
class Classes:
    """`numbers`: of each value of a label its class, 0 to len(names) - 1."""

    numbers: Mapping[Value, int]
    names: tuple[str, ...]

    def number(self, value: Value, where: str) -> int:
        if value in self.numbers:
            return self.numbers[value]
        why = f"it is {shown(value)}, and there are {len(self.names):,} classes"
        raise JobError("GTJ0113", "the label is of no class", where=where, why=why, how="mend the label, or index the data anew")


def classes(values: Iterable[Value], column: str, where: str, names: Sequence[str] | None = None) -> Classes:
    """Of all values of a column, in any order: numbers as they are where they are 0 to n - 1, else in their order; words in theirs (by
    code point). `names` are those that the data itself gives its numbers; then numbers are theirs, also those that no sample has.

    JobError GTJ0113 for what is no label: no value, numbers beside words, a number without a name.
    """
    there = set(values)
    if None in there:
        how = "take the samples out with data.where, or give them a class of their own"
        raise JobError("GTJ0113", f"samples have no {column}", where=where, why="some labels are empty", how=how)
    kinds = {str if isinstance(value, str) else int if isinstance(value, int) else type(value) for value in there}
    if len(kinds) > 1 or not kinds <= {str, int}:
        why = f"among them are {', '.join(sorted(shown(value) for value in [*there][:4]))}"
        raise JobError("GTJ0113", f"{column} is no label", where=where, why=why, how="write every class as a whole number, or as a word")
    if names is not None and kinds <= {int}:
        if wrong := [value for value in there if not 0 <= value < len(names)]:
            why = f"{min(wrong)} is none of the {len(names):,} numbers that the data names"
            how = "samples without a class (-1) are taken out by data.where"
            raise JobError("GTJ0113", f"{column} has a class without a name", where=where, why=why, how=how)
        return Classes({number: number for number in range(len(names))}, tuple(names))
    ordered = sorted(there)
    if kinds <= {int} and ordered == list(range(len(ordered))):
        return Classes({int(value): int(value) for value in ordered}, tuple(str(int(value)) for value in ordered))
    return Classes({value: number for number, value in enumerate(ordered)}, tuple(map(str, cast("list[object]", ordered))))
