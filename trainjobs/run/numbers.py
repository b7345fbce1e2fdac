"""Numbers as people read them: four significant digits, 1h12m, 31.2 GiB."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def number(value: object) -> float | None:
    """A number from a JSON row, where NaN and infinity are written as "nan", "inf" and "-inf"; None for anything else."""
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def short(of: object) -> str:
    """Four significant digits: 0.0413, 812.4, 50000, 1.2e-05, nan. What is not a number is "-"."""
    value = number(of)
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


WORTH_TELLING = 0.05  # of the time


def waiting(share: object) -> str:
    """ "waiting for data 12 %", of a share of a step's time; nothing where it is little."""
    value = number(share)
    return f"waiting for data {100 * value:.0f} %" if value is not None and value > WORTH_TELLING else ""


def duration(seconds: float) -> str:
    """The two largest units: 45s, 3m20s, 1h12m, 2d3h. Never negative."""
    whole = max(0, round(seconds))
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}{unit}{rest}{smaller}" if rest else f"{whole // size}{unit}"
    return f"{whole}s"


def size(count: float) -> str:
    """Bytes in binary units, three significant digits: 512 B, 31.2 GiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    text = f"{value:.0f}" if unit == "B" or value >= 100 else f"{value:.3g}"
    return f"{text} {unit}"


def instant(value: object) -> float | None:
    """Unix time of a moment written as seconds or as ISO 8601 (naive is UTC); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def moment(value: object) -> str:
    """A moment as "2026-08-30 12:00:05 UTC"; "-" when there is none."""
    seconds = instant(value)
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
