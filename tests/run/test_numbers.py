"""Numbers as people read them, as tables."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainjobs.run import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0413, "-0.0413"),
        (0.041349, "0.04135"),
        (812.44, "812.4"),
        (812.46, "812.5"),
        (9999.6, "10000"),
        (50000, "50000"),
        (999_999, "999999"),
        (1_000_000, "1e6"),
        (1_234_567.0, "1.23e6"),
        (0.001, "0.001"),
        (0.00099, "9.9e-4"),
        (1.2e-05, "1.2e-5"),
        (3.14159, "3.142"),
        (2.5, "2.5"),
        (1e300, "1e300"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("3", "-"),
        (None, "-"),
        (True, "-"),
        ([], "-"),
    ],
)
def test_four_digits(value: object, shown: str) -> None:
    assert numbers.short(value) == shown


@pytest.mark.parametrize("value", [0.1234567, 12.34567, 999.94, 1234.567, 98765.4, 3.3e-4, 7.7e12])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_shown_is_near_to_what_is_meant(value: float, sign: int) -> None:
    assert float(numbers.short(sign * value)) == pytest.approx(sign * value, rel=5e-3)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3.0, "0s"),
        (0.4, "0s"),
        (0.6, "1s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (200, "3m20s"),
        (3599.7, "1h"),
        (3600 + 12 * 60 + 59, "1h12m"),
        (86400, "1d"),
        (2 * 86400 + 3 * 3600 + 59 * 60, "2d3h"),
        (400 * 86400, "400d"),
    ],
)
def test_the_two_largest_units(seconds: float, shown: str) -> None:
    assert numbers.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (33.5 * 2**20, "33.5 MiB"),
        (31.2 * 2**30, "31.2 GiB"),
        (999 * 2**30, "999 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_binary_units(count: float, shown: str) -> None:
    assert numbers.size(count) == shown


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1788091205, 1788091205.0),
        (0.5, 0.5),
        ("2026-08-30T12:00:05", 1788091205.0),
        ("2026-08-30T12:00:05Z", 1788091205.0),
        ("2026-08-30T14:00:05+02:00", 1788091205.0),
        (math.nan, None),
        (math.inf, None),
        (True, None),
        ("yesterday", None),
        (None, None),
        ({}, None),
    ],
)
def test_moments(value: Any, seconds: float | None) -> None:
    assert numbers.instant(value) == seconds
    assert numbers.moment(value) == ("-" if seconds is None else "1970-01-01 00:00:00 UTC" if seconds < 1 else "2026-08-30 12:00:05 UTC")


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3.0), (0.5, 0.5), ("inf", math.inf), ("-inf", -math.inf), ("infinity", None), (False, None)]
)
def test_numbers_of_a_row(value: object, number: float | None) -> None:
    assert numbers.number(value) == number
