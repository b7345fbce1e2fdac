"""Moments as the API server writes and reads them."""

from __future__ import annotations

import datetime


def time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed_time(text: object) -> datetime.datetime | None:
    """A time as the API server writes it; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except ValueError:
        return None
