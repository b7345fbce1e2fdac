"""Tiny pipelines for the campaign, in a folder and on a hub that is all on this machine. `named` says what of them is trained, without
their being there: diffusers, which makes them, is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAME = "org/pipeline"


def named(folder: Path) -> dict[str, dict[str, Any]]:
    """The family's part of manifests, by name; the pipelines are those that `write` leaves."""
    base = {"pretrained": {"source": f"file://{folder / 'pipeline'}"}, "sampler": {"steps": 2}}
    booth = {"instancePrompt": "a red thing", "classPrompt": "a thing", "classImages": 2}
    word = {"placeholder": "<new>", "initializer": "toy", "property": "style"}
    return {
        "whole": {**base, "conditioning": {"type": "text"}},
        "lora": {**base, "adapt": {"type": "lora", "lora": {"rank": 2}}},
        "hub": {**base, "pretrained": {"source": f"hf://{NAME}", "revision": "v1"}, "adapt": {"type": "lora", "lora": {"rank": 2}}},
        "booth": {**base, "adapt": {"type": "lora", "lora": {"rank": 2}, "dreambooth": booth}},
        "word": {**base, "adapt": {"type": "textual-inversion", "textualInversion": word}},
    }


def given(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "diffusion.pretrained.source": {"": f"file://{folder / 'other-pipeline'}"},
        "diffusion.pretrained.revision": {"diffusion-hub": "v2"},
        "diffusion.adapt.lora.targetModules": {"": ["to_q"]},
        "diffusion.adapt.textualInversion.placeholder": {"": "<other>"},
        "diffusion.adapt.textualInversion.initializer": {"": "red"},
        "diffusion.adapt.dreambooth.instancePrompt": {"": "a blue thing"},
        "diffusion.adapt.dreambooth.classPrompt": {"": "a toy"},
    }


def write(folder: Path) -> None:
    """The pipelines, of which one differs from the other."""
    from tests.models.pipelines import saved

    saved(folder / "pipeline")
    saved(folder / "other-pipeline", width=8)
    root = folder / "hub" / f"models--{NAME.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    for number, width in ((1, 16), (2, 8)):
        commit = str(number) * 40
        saved(root / "snapshots" / commit, width=width)
        (root / "refs" / f"v{number}").write_text(commit)
