"""Problems as a compiler shows them: file:line:column, the line itself, a caret."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.shape import dotted
from trainjobs.cli.manifest import Found, InvalidManifest

WIDTH = 120  # characters of a manifest's line that are shown
CARETS = 40  # they show where to look, not how long it is


def rendered(found: Iterable[Found]) -> str:
    return "\n\n".join(block(one) for one in found)


def block(found: Found) -> str:
    """One problem:

    job.yaml:12:5: GTJ0101 unknown field "learnigRate" in spec.training.optimizers.generator
       12 |     learnigRate: 1e-4
          |     ^^^^^^^^^^^
          = did you mean "learningRate"?
    """
    at, problem = found.at, found.problem
    where = f"{found.source}:{at.line}:{at.column}" if at else found.source
    lines = [f"{where}: {problem.code}{': note:' if problem.note else ''} {problem.what}"]
    gutter = " " * 7
    if at and found.line:
        line, column = windowed(found.line, at.column)
        # A tab before the caret stays a tab, so that both lines are shifted alike.
        before = "".join("\t" if character == "\t" else " " for character in line[: column - 1])
        caret = "^" * max(1, min(at.length, CARETS, len(line) - column + 1))
        lines += [f"{at.line:>6} | {line}", f"{gutter}| {before}{caret}"]
    lines += [f"{gutter}= {text}" for text in (problem.why, problem.how) if text]
    return "\n".join(lines)


def windowed(line: str, column: int) -> tuple[str, int]:
    """At most WIDTH characters of a line, those around `column` (from 1), with "…" where it is cut; and the column therein."""
    if len(line) <= WIDTH:
        return line, column
    start = max(0, min(column - 1 - WIDTH // 3, len(line) - WIDTH))
    shown = line[start : start + WIDTH]
    if start + WIDTH < len(line):
        shown = shown[:-1] + "…"
    return ("…" + shown[1:] if start else shown), column - start


def plain(error: JobError) -> str:
    """Any error of the command line: every problem of a manifest, or what, where, why and how on lines of their own."""
    if isinstance(error, InvalidManifest):
        return rendered(error.found)
    parts = (("where", error.where), ("why", error.why), ("how", error.how))
    return "\n".join([f"{error.code} {error.what}", *(f"  {name + ':':<7}{text}" for name, text in parts if text)])


def as_data(found: Found) -> dict[str, Any]:
    """The same for programs."""
    problem = found.problem
    return {
        "file": found.source,
        "line": found.at.line if found.at else None,
        "column": found.at.column if found.at else None,
        "code": problem.code,
        "path": dotted(problem.path),
        "what": problem.what,
        "why": problem.why,
        "how": problem.how,
    }
