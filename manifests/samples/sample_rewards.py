"""What a completion is worth, for the samples language-grpo and language-ppo. `gtj run` finds it with PYTHONPATH=manifests/samples."""

from __future__ import annotations

from typing import Any


def words(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
    """The share of a completion's first 24 characters that are lower-case letters or spaces."""
    return [sum(one == " " or one.islower() for one in text[:24]) / 24 for text in completions]
