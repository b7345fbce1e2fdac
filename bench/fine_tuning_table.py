"""The part of docs/benchmarks.md that says what fine-tuning learns."""

from __future__ import annotations

from typing import Any


def section(run: dict[str, Any] | None) -> list[str]:
    """How often the base draws what is asked for, and what each way of fine-tuning has learned and kept."""
    if run is None:
        return []
    lines = [
        "## What fine-tuning learns",
        "",
        f"A pipeline in the form of Stable Diffusion, {run['weights'] / 1e6:.1f} million weights trained here (`bench/fine_tuning.py`) on",
        "captioned shapes of six colours, of which green is never named. A new word that begins as red is to find it from five pictures;",
        'low-rank changes and DreamBooth are to learn that "a red toy circle" is green. Colours are told from pixels.',
        "",
        "| Guidance of the base | pictures of the five colours it can be asked for | have the colour that was asked for |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {row['guidance']:g} | {row['pictures']} | {row['colours']} |" for row in run["guided"]]
    lines += [
        "",
        "Of 24 pictures that ask for what is learned: how many are green, and how far their mean colour is from that of the green ones, in",
        f"RGB of [0, 1]. Kept: of {run['pictures']} pictures of the other five colours how many have theirs.",
        "",
        "| What is trained | steps of 32 pictures | green, before and after | distance, before and after | kept, before and after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in run["cases"]:
        told = " | ".join(f"{row['before'][name]}, {row['after'][name]}" for name in ("held", "distance", "kept"))
        lines.append(f"| {row['case']} | {row['steps']} | {told} |")
    return [*lines, ""]
