"""YAML as `kubectl` reads it, with the place of every value.

Scalars resolve as in sigs.k8s.io/yaml, which kubectl uses, and not as PyYAML would:

- `1e-4` is a number (PyYAML: text), and whole floats are integers, since both pass through JSON: `steps: 5e4` is 50000;
- `yes`, `no`, `on`, `off`, `y` and `n` are booleans, so a text of that kind needs quotes, here as on a cluster;
- `0x10` and `0b11` are integers; `017`, `0o17` and `09` are refused, since readers of YAML do not agree about them;
- `1:30` is text (PyYAML: 90), dates are text (PyYAML: a date);
- `.inf` and `.nan` are refused: JSON has no such numbers;
- keys are text: `on: x` has the key "true", `1: x` the key "1"; a key given twice is an error, as with kubectl's strict validation;
- anchors, aliases and `<<` work, within a limit on how much they may multiply.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from trainjobs.api.problem import Problem
from trainjobs.api.shape import Path

BOOLEANS = {
    **{word: True for name in ("y", "yes", "on", "true") for word in (name, name.capitalize(), name.upper())},
    **{word: False for name in ("n", "no", "off", "false") for word in (name, name.capitalize(), name.upper())},
}
NULLS = ("", "~", "null", "Null", "NULL")
INTEGER = re.compile(r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*|0)")
AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]*[0-9]|0o[0-7_]+)")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
MOST_VALUES = 100_000
TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Position:
    """Line and column count from 1; `length` characters deserve the caret."""

    line: int
    column: int
    length: int = 1


@dataclass
class Document:
    """One document of a file: plain data, the position of every key and value, and what was wrong on the way."""

    data: Any = None
    values: dict[Path, Position] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    problems: list[tuple[Position, Problem]] = field(default_factory=list)
    count: int = 0


class Scalars(yaml.SafeLoader):
    """Leaves plain scalars without a type, so that `resolved` gives them kubectl's."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own class attribute)


def documents(text: str) -> Iterator[Document]:
    """Every document with content. Malformed YAML ends the iteration with a document that holds nothing but the problem."""
    try:
        loader = Scalars(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        yield Document(
            problems=[(at, Problem("GTJ0105", (), "malformed YAML", f"the character U+{ord(text[error.position]):04X} is not allowed"))]
        )
        return
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node said so"
            if not (isinstance(node, ScalarNode) and node.style is None and node.value in NULLS):
                yield document(node)
    except yaml.MarkedYAMLError as error:
        yield Document(problems=[malformed(error)])
    except RecursionError:
        yield Document(problems=[(Position(1, 1), Problem("GTJ0105", (), "the YAML is nested too deeply to be a job"))])
    finally:
        loader.dispose()


def malformed(error: yaml.MarkedYAMLError) -> tuple[Position, Problem]:
    mark = error.problem_mark or error.context_mark
    at = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    why = (error.problem or "").replace("<block end>", "the end of the block").replace("<scalar>", "text")
    if error.context and error.context_mark and error.context_mark.line != at.line - 1:
        why = f"{error.context} from line {error.context_mark.line + 1}: {why}"
    how = ""
    if "'\\t'" in why:
        how = "indent with spaces, YAML takes no tabs"
    elif "mapping values are not allowed" in why:
        how = "put quotes around text that holds a colon and a space, and look at the indentation"
    return at, Problem("GTJ0105", (), "malformed YAML", why, how)


def document(node: Node) -> Document:
    found = Document()
    try:
        found.data = converted(node, (), found)
    except Overflow:
        at = Position(node.start_mark.line + 1, node.start_mark.column + 1)
        found.problems.append((at, Problem("GTJ0105", (), f"aliases multiply the manifest to more than {MOST_VALUES} values")))
    return found


class Overflow(Exception):
    """Aliases multiplied beyond MOST_VALUES, or one contains itself."""


def converted(node: Node, path: Path, into: Document) -> Any:
    into.count += 1
    if into.count > MOST_VALUES or len(path) > 200:
        raise Overflow
    into.values.setdefault(path, place(node))
    if isinstance(node, ScalarNode):
        return scalar(node, path, into)
    if isinstance(node, SequenceNode):
        return [converted(item, (*path, index), into) for index, item in enumerate(node.value)]
    assert isinstance(node, MappingNode)
    data: dict[str, Any] = {}
    merged: list[Node] = []
    for key_node, value in node.value:
        if isinstance(key_node, ScalarNode) and key_node.value == "<<" and key_node.style is None:
            merged += value.value if isinstance(value, SequenceNode) else [value]
            continue
        key = key_text(key_node, path, into)
        here = (*path, key)
        if key in data:
            first = into.keys[here]
            what = f'"{key}" is given twice'
            into.problems.append(
                (place(key_node), Problem("GTJ0105", here, what, f"it is on line {first.line} already", "take one of them out"))
            )
            continue
        into.keys.setdefault(here, place(key_node))
        data[key] = converted(value, here, into)
    for other in merged:
        extra = converted(other, path, into)
        if isinstance(extra, dict):
            data = {**extra, **data}
        else:
            into.problems.append((place(other), Problem("GTJ0105", path, "<< takes a mapping or a list of mappings")))
    return data


def key_text(node: Node, path: Path, into: Document) -> str:
    if not isinstance(node, ScalarNode):
        into.problems.append((place(node), Problem("GTJ0105", path, "a key must be text")))
        return ""
    plain = node.style is None and node.tag == TAG + "str"
    value = resolved(node.value) if plain else node.value
    if plain:
        into.problems += [(place(node), problem) for problem in ambiguous(node.value, path)]
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else str(node.value)


def scalar(node: ScalarNode, path: Path, into: Document) -> Any:
    text = str(node.value)
    if node.tag not in (TAG + "str", TAG + "int", TAG + "float", TAG + "bool", TAG + "null", "!"):
        into.problems.append((place(node), Problem("GTJ0105", path, f"the tag {node.tag.replace(TAG, '!!')} means nothing in a manifest")))
        return text
    if node.style is not None or node.tag == "!":
        return text
    value = resolved(text)
    into.problems += [(place(node), problem) for problem in ambiguous(text, path)]
    if isinstance(value, float) and not math.isfinite(value):
        into.problems.append((place(node), Problem("GTJ0102", path, f"{text} is not a number that JSON can hold")))
    return value


def ambiguous(text: str, path: Path) -> Iterator[Problem]:
    """What is wrong with a number that begins with a zero, where readers of YAML do not agree about it."""
    if not AMBIGUOUS.fullmatch(text):
        return
    digits = text.replace("_", "").lstrip("+-")
    value = resolved(text)
    decimal = ("-" if text[0] == "-" else "") + (digits.removeprefix("0o").lstrip("0") or "0")
    if digits.startswith("0o"):
        why = f"YAML 1.2 reads it as octal, {value}, and YAML 1.1 as the text {text}"
        how = f'write {value} for the number, "{text}" for text'
    elif "8" in digits or "9" in digits:
        why = f"some read it as {value}, and others as the text {text}, since it is no octal number"
        how = f'write {value} for the number, "{text}" for text'
    elif str(value) != decimal:
        why = f"YAML 1.1 (kubectl too) reads it as octal, {value}, and YAML 1.2 as {decimal}"
        how = f'write {value} or {decimal}, whichever you mean, or "{text}" for text'
    else:
        return
    yield Problem("GTJ0102", path, f"{text} is ambiguous", why, how)


def resolved(text: str) -> Any:
    """The value of a plain scalar: None, a boolean, an integer, a float, or the text itself."""
    if text in NULLS:
        return None
    if text in BOOLEANS:
        return BOOLEANS[text]
    if INTEGER.fullmatch(text):
        return integer(text.replace("_", ""))
    if FLOAT.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return math.nan if NO_NUMBER.fullmatch(text) else text


def integer(text: str) -> int | str:
    """As Go's ParseInt with base 0: 0b, 0o, 0x and a leading 0 for octal."""
    digits = text.lstrip("+-")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 8 if digits[0] == "0" and len(digits) > 1 else 10)
    digits = digits[2:] if digits[:2] in ("0b", "0o", "0x") else digits
    value = int(digits, base) if digits else text
    return -value if text[0] == "-" and isinstance(value, int) else value


def place(node: Node) -> Position:
    start, end = node.start_mark, node.end_mark
    length = end.column - start.column if end.line == start.line else 1
    return Position(start.line + 1, start.column + 1, max(length, 1))
