"""The page of the silence campaign, made from its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.silence.attempts import Row
from trainjobs.api.job import FAMILIES

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "bench" / "results" / "silence" / "rows.json", ROOT / "docs" / "silence.md"
ONE_VALUE, REFUSED = "one value only", "refused at validation"

HEAD = """# What changes between two attempts

Made by `make campaign-silence` from `bench/results/silence/rows.json`; do not edit.

A run of four steps stops after two. One thing is changed, and the run goes on: it ends with the very weights, states and metrics of a run
in which nothing changed, bit for bit (**same**), or says what changed (**told**, in the timeline and the report; an error with its code).
Anything else, and a run that tells of what did not change, fails the campaign. The fields are found in the manifest's own models, and the
other value in the field's type, so a new field is tried by itself.

*told =*: told, and the result is the same to the last bit. *-*: the family has no such field, or a manifest with another value is refused
before anything runs. *one*: there is no other value.
"""


def record(rows: Sequence[Row], seconds: float) -> None:
    """Write the rows, and the page from them."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    kept = {"seconds": round(seconds), "rows": [{**asdict(row), "words": row.words[:80], "change": row.change[:80]} for row in rows]}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(rows, seconds))


def page(rows: Sequence[Row], seconds: float) -> str:
    family = {row.base: row.base.partition("-")[0] for row in rows}
    fields = [row for row in rows if not row.what.startswith("input: ")]
    tried = [row for row in rows if row.change not in (ONE_VALUE, REFUSED)]
    counts = {verdict: sum(row.verdict == verdict for row in tried) for verdict in ("same", "told", "refused")}
    wrong = len(tried) - sum(counts.values())
    parts = [f"{counts['same']} the same", f"{counts['told']} told", f"{counts['refused']} refused", f"{wrong} wrong"]
    lines = [HEAD, f"{len(tried)} changes in {seconds:.0f} s: {', '.join(parts)}.", ""]
    lines += [f"| Field | {' | '.join(FAMILIES)} |", f"| --- |{' --- |' * len(FAMILIES)}"]
    for name in dict.fromkeys(row.what for row in fields):
        cells = {family[row.base]: cell(row) for row in fields if row.what == name}
        lines.append(f"| `{name}` | {' | '.join(cells.get(one, '-') for one in FAMILIES)} |")
    lines += ["", "Beside the manifest:", "", "| What changed | in the run of | then |", "| --- | --- | --- |"]
    for row in rows:
        if row.what.startswith("input: "):
            lines.append(f"| {row.what.removeprefix('input: ')} | {row.base} | {cell(row)} |")
    return "\n".join(lines) + "\n"


def cell(row: Row) -> str:
    if row.change in (ONE_VALUE, REFUSED):
        return "one" if row.change == ONE_VALUE else "-"
    if row.verdict == "refused":
        return row.words
    return row.verdict + (" =" if row.verdict == "told" and row.words else "")
