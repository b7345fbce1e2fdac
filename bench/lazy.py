"""Samples per second of a StyleGAN2 with its lazy terms on, R1 every 16 steps and path length every 4, against a plain torch loop that has
the same phases (`bench/lazy_loops.py`); at 32 pixels, and at 128, where it is told in seconds for a thousand images.

`python -m bench.lazy CASE PAIRS` measures one of `CASES` as `bench/training.py` does, and prints its pairs as JSON. On a CPU networks are
narrow and batches small: a full StyleGAN2 of 128 pixels takes minutes for a step. What a step costs beside its arithmetic shows the more,
noise above all, which is drawn for each pixel however few features it has (StyleGAN2's own have 512 at 32 pixels).
"""

from __future__ import annotations

import json
import os
import sys
from statistics import median
from typing import Any
from unittest import mock

from bench.ratios import ratio

OPTIMIZER = {"name": "adam", "learningRate": 0.0025, "betas": [0.0, 0.99]}


def case(size: int, channels: int, batch: int, steps: int) -> dict[str, Any]:
    """Of bench/training.py. The steps after the first ten are a multiple of 16: both loops have as many of each phase."""
    gan = {
        "generator": {"architecture": "stylegan2", "latentDim": 64, "channels": channels, "mappingLayers": 8},
        "discriminator": {"architecture": "stylegan2", "channels": channels, "minibatchDeviation": {"group": 4}},
        "loss": {"type": "bce"},
        "regularization": {"r1": {"gamma": 1.0, "every": 16}, "pathLength": {"every": 4}},
    }
    data = {"source": "builtin:shapes", "images": {"size": size, "channels": 3}}
    return {"model": {"gan": gan}, "data": data, "batch": batch, "steps": 10 + steps, "optimizer": OPTIMIZER}


CASES = {"32 pixels": case(32, 8, 32, 48), "32 pixels, wider": case(32, 16, 16, 48), "128 pixels": case(128, 4, 8, 32)}


def measure(name: str, pairs: int) -> list[dict[str, float]]:
    from bench import plain_loops, training
    from bench.lazy_loops import stylegan2

    with mock.patch.dict(plain_loops.LOOPS, gan=stylegan2):
        return training.measure("gan", CASES[name], pairs)


def section(result: dict[str, Any] | None) -> list[str]:
    """Of docs/benchmarks.md."""
    lines = [
        "## StyleGAN2 with its lazy terms",
        "",
        "R1 every 16 steps and path length every 4, against a plain torch loop with the same phases, networks and corrected Adam",
        "(`bench/lazy_loops.py`); one process, one thread, fp32, ZeRO stage 0, narrow networks, because this is a CPU. Goal: at",
        "least 0.97.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    lines += [
        "| Case | channels | batch | ours / plain | by processor time | ours, s/kimg | plain, s/kimg | pairs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["pairs"]:
        told, pairs = CASES[row["case"]], row["pairs"]
        channels = told["model"]["gan"]["generator"]["channels"]
        wall, processor = ([pair[f"ours{of}"] / pair[f"plain{of}"] for pair in pairs] for of in ("", "_processor"))
        ours, plain = (1000 / median(pair[side] for pair in pairs) for side in ("ours", "plain"))
        ratios = f"{ratio(wall)} | {ratio(processor)}"
        lines.append(f"| {row['case']} | {channels} | {told['batch']} | {ratios} | {ours:.1f} | {plain:.1f} | {len(pairs)} |")
    return [*lines, ""]


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
