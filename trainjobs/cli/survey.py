"""What is known of a data set, as people read it in a terminal of 80 columns or more."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from trainjobs.cli.output import columns, folded
from trainjobs.data.files import megabytes
from trainjobs.data.survey import Histogram, Survey

BAR = 30  # characters of the longest bar
HEAD = 16
GROUPS = 3  # of duplicates
NAMES = 3


def printed(surveys: Sequence[Survey], width: int | None = None) -> str:
    """All sources, one under the other."""
    wide = max(60, width or columns())
    return "\n\n".join("\n".join(lines(one, wide)) for one in surveys)


def lines(survey: Survey, width: int) -> Iterator[str]:
    yield from folded("", survey.source, width)
    for words in survey.words:
        yield from folded("  ", words, width)
    if survey.columns:
        yield ""
        yield from table(survey, width)
    yield ""
    about = "" if survey.exact else "about "
    held = f"{about}{survey.heldout:,} held out" if survey.heldout else "none held out"
    yield said("samples", f"{about}{survey.samples:,} to train on, {held}")
    if survey.files:
        yield said("size", f"{size(survey.bytes)} in {survey.files:,} file{'s' if survey.files > 1 else ''}")
    if survey.buckets:
        yield from folded(f"  {'shapes':<{HEAD}}", ", ".join(f"{name} ({count:,})" for name, count in survey.buckets), width)
    if not survey.looked:
        return
    yield said("looked at", f"{survey.looked:,} samples, evenly spread" if survey.looked < survey.rows else "every sample")
    if survey.labels:
        yield from folded(f"  {'labels':<{HEAD}}", ", ".join(f"{name} ({count:,})" for name, count in survey.labels), width)
    yield from alike(survey, width)
    for where, why in survey.broken:
        yield from folded(f"  {'cannot be read':<{HEAD}}", f"{where}: {why}", width)
    if survey.histogram:
        yield ""
        yield from drawn(survey.histogram)


def table(survey: Survey, width: int) -> list[str]:
    """Columns, what they stand for, and an example. Names and examples give way where there is no room."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    made.add_column("column", no_wrap=True, overflow="ellipsis", max_width=max(12, width // 4))
    for name, cells in (("role", [one.role for one in survey.columns]), ("kind", [one.kind for one in survey.columns])):
        made.add_column(name, no_wrap=True, min_width=max(map(len, [name, *cells])))
    made.add_column("example", no_wrap=True, overflow="ellipsis")
    for column in survey.columns:
        made.add_row(*(Text(cell) for cell in (column.name, column.role or "-", column.kind, column.example)))
    file = io.StringIO()
    Console(file=file, width=width - 2, color_system=None, highlight=False, emoji=False).print(made)
    return [f"  {line.rstrip()}" for line in file.getvalue().splitlines()]


def alike(survey: Survey, width: int) -> Iterator[str]:
    among = f"of {survey.looked:,} looked at" if survey.looked < survey.rows else f"of all {survey.looked:,}"
    if not survey.copies:
        yield said("duplicates", f"none {among}")
        return
    yield said("duplicates", f"{survey.copies:,} {among} {'are copies' if survey.copies > 1 else 'is a copy'} of others")
    for group in survey.duplicates[:GROUPS]:
        more = f" and {len(group) - NAMES} more" if len(group) > NAMES else ""
        yield from folded(" " * (HEAD + 2), f"{' = '.join(group[:NAMES])}{more}", width)


def drawn(histogram: Histogram) -> Iterator[str]:
    yield f"  {histogram.of}: {histogram.least:,} to {histogram.most:,}"
    most = max(count for _, _, count in histogram.bins)
    names = [f"{low:,} to {high:,}" if high > low else f"{low:,}" for low, high, _ in histogram.bins]
    wide = max(map(len, names))
    for name, (_, _, count) in zip(names, histogram.bins, strict=True):
        bar = "█" * max(round(BAR * count / most), 1 if count else 0)
        yield f"  {name:>{wide}}  {bar} {count:,}" if count else f"  {name:>{wide}}"


def said(name: str, text: str) -> str:
    return f"  {name:<{HEAD}}{text}"


def size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else megabytes(count)
