"""What the data of a run is, as its rank 0 told at its start: columns and counts of each source, and the first samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainjobs.report.gallery import loaded

MOST = 40  # columns of a source


def data(folder: Path) -> dict[str, Any] | None:
    """What the page shows of samples/data.json, data.png and data.txt; None for a run that has written none of them. Whatever is missing or
    of another shape is left out."""
    try:
        told = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = None
    sources = [source for one in told if (source := described(one))] if isinstance(told, list) else []
    first = loaded(0, folder / "data.png") or loaded(0, folder / "data.txt")
    if not sources and first is None:
        return None
    return {"sources": sources, "picture": first.picture if first else "", "text": first.text if first else ""}


def described(told: Any) -> dict[str, Any] | None:
    """A source, in words; `told` is what survey.Survey.as_data gave."""
    if not isinstance(told, Mapping):
        return None
    columns = [one for one in _list(told.get("columns")) if isinstance(one, Mapping)]
    words = [str(one) for one in _list(told.get("words"))]
    counts = [(name, _number(told.get(key))) for name, key in (("trained on", "samples"), ("held out", "heldout"), ("files", "files"))]
    return {
        "uri": str(told.get("source", "")),
        "words": "; ".join(words),
        "counts": ", ".join(f"{count:,} {name}" for name, count in counts if count is not None and (count or name != "files")),
        "columns": [{key: str(one.get(key, "")) for key in ("name", "role", "kind", "example")} for one in columns[:MOST]],
        "more": max(0, len(columns) - MOST),
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
