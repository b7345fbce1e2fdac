"""How the pairs of a benchmark are told."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles


def ratio(values: Sequence[float]) -> str:
    """The median; in brackets the quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{median(values):.3f} ({low:.3f} to {high:.3f})"
