"""builtin:stdlib-pairs, stdlib-chat and stdlib-preferences: what Python's standard library says of its own functions and classes.

pairs: a definition, and its docstring. chat: a user who asks what something does and how it is called, and is answered. preferences: a
definition, its docstring (chosen) and the same in capitals (rejected). The same for one release of Python; no torch here.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from trainjobs.data.documents import stdlib_files, text_of
from trainjobs.data.files import fingerprint

KINDS = ("stdlib-pairs", "stdlib-chat", "stdlib-preferences")
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def key(kind: str) -> str:
    """Changes with the library, and differs between the kinds."""
    return f"{kind}-{fingerprint(stdlib_files())}"


def records(kind: str) -> Iterator[tuple[str, str, Mapping[str, Any], bool]]:
    """As Dataset.documents: name, where it is, the value of each role, and that it is of no split of its own."""
    found = definitions()
    for name, head, words in found:
        where = f"builtin:{kind}, {name}"
        if kind == "stdlib-pairs":
            yield name, where, {"prompt": f"{head}\n", "completion": words}, False
        elif kind == "stdlib-chat":
            short = words.split("\n\n")[0]
            talk = [
                {"role": "user", "content": f"What is {name}?"},
                {"role": "assistant", "content": short},
                {"role": "user", "content": "How is it defined?"},
                {"role": "assistant", "content": head},
            ]
            yield name, where, {"messages": talk}, False
        else:
            if words.upper() != words:
                yield name, where, {"prompt": f"{head}\n", "chosen": words, "rejected": words.upper()}, False


@cache
def definitions() -> tuple[tuple[str, str, str], ...]:
    """(name, the line or lines that define it, docstring) of every function and class that has one, in the order of files and lines."""
    found = []
    for file in stdlib_files():
        text = text_of(file)
        lines = text.split("\n")
        module = file.name.removesuffix(".py")
        for node, inside in _defined(ast.parse(text), module):
            if words := ast.get_docstring(node):
                head = inspect.cleandoc("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])) or lines[node.lineno - 1].strip()
                found.append((inside, head, words))
    return tuple(found)


def _defined(tree: ast.AST, inside: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _DEFINED):
            yield node, f"{inside}.{node.name}"
            yield from _defined(node, f"{inside}.{node.name}")
        else:
            yield from _defined(node, inside)
