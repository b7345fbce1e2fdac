"""Techniques and what proves them, one row each: the field as manifests write it, the ZeRO stages at which it was compared, the test that
holds it, what it is compared with, and the largest difference seen (of weights after some steps, or of values where no weights move)."""

from __future__ import annotations

from typing import Any

DENOISED = "tests/equivalence/test_denoised.py::test_follows_plain_torch"

TECHNIQUES: list[dict[str, Any]] = []
