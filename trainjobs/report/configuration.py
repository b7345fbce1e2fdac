"""The configuration as it ran, as YAML, with what the command line changed marked in it; and a manifest's text in two colours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup, escape

from trainjobs.run.folder import Row

Path = tuple[str, ...]


def effective(job: Row, changes: Row) -> Markup:
    """job.json as YAML with its keys marked; `changes` by path, as changes.json has them."""
    return Markup("\n").join(line(text, changes.get(".".join(path))) for path, text in lines(job, ()))


def changed(changes: Row) -> list[dict[str, str]]:
    """What the command line changed, for a list: {"path", "by", "was"}."""
    return [{"path": path, "by": by(change), "was": was(change)} for path, change in changes.items() if isinstance(change, Mapping)]


def line(text: str, change: object) -> Markup:
    if not isinstance(change, Mapping):
        return highlighted(text)
    return Markup('<mark>{}</mark> <i class="by"># {}; {}</i>').format(highlighted(text), by(change), was(change))


def by(change: Mapping[str, Any]) -> str:
    return str(change.get("by", ""))


def was(change: Mapping[str, Any]) -> str:
    """What the manifest says."""
    return "not in the manifest" if change.get("was") is None else f"{scalar(change['was'])} in the manifest"


def lines(value: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    """Each line, and the path of what it holds. Lists stand in one line: those of a manifest are short."""
    indent = "  " * len(path)
    for key, inner in value.items():
        here = (*path, str(key))
        if isinstance(inner, Mapping) and inner:
            yield here, f"{indent}{key}:"
            yield from lines(inner, here)
        else:
            yield here, f"{indent}{key}: {scalar(inner)}"


def scalar(value: Any) -> str:
    """As YAML on one line: JSON, with the quotes taken off where a word needs none."""
    if (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z][\w./:+-]*[\w/]", value)
        and value not in ("true", "false", "null", "yes", "no", "on", "off")
    ):
        return value
    return json.dumps(value, ensure_ascii=False)


def highlighted(yaml_text: str) -> Markup:
    """YAML with its keys and comments marked, escaped."""
    found: list[Markup] = []
    for text in yaml_text.splitlines():
        match = re.match(r"^(\s*(?:- )*)([\w./-]+)(:(?:\s|$))(.*)$", text)
        if text.lstrip().startswith("#"):
            found.append(Markup("<i>{}</i>").format(text))
        elif match:
            value, comment = split_comment(match[4])
            found.append(Markup("{}<b>{}</b>{}{}<i>{}</i>").format(match[1], match[2], match[3], value, comment))
        else:
            found.append(escape(text))
    return Markup("\n").join(found)


def split_comment(value: str) -> tuple[str, str]:
    """A value and the comment behind it. A # in quotes stays with the value."""
    position = value.find(" #")
    if position < 0 or value[:position].count('"') % 2 or value[:position].count("'") % 2:
        return value, ""
    return value[:position], value[position:]
