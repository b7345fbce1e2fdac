"""Kubernetes quantities, as far as a worker's share of a node needs them."""

from __future__ import annotations

from fractions import Fraction

_SUFFIXES = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
}


def amount(quantity: str) -> Fraction:
    """The value of a quantity: amount("500m") == 1/2. ValueError when it is none."""
    digits = quantity.rstrip("mkKMGTPi")
    suffix = quantity[len(digits) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"not a quantity: {quantity!r}")
    return Fraction(digits) * _SUFFIXES[suffix]


def cpu(value: Fraction) -> str:
    """CPUs, rounded down to a thousandth."""
    thousandths = int(value * 1000)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def memory(value: Fraction) -> str:
    """Bytes, rounded down to a mebibyte."""
    return f"{int(value / 2**20)}Mi"
