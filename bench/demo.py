"""What `make demo` trains, how long that takes, and how often its pictures are what was asked for, at several strengths of guidance.

python -m bench.demo [FOLDER]: writes bench/results/demo.json and docs/images/diffusion-shapes.png. FOLDER keeps the run.

Processor seconds are those of every process that has this run's mark in its environment, Ray's own among them; on two cores that have
nothing else to do a run takes about half of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.record import RESULTS, ROOT, header
from tests.sampling.judge import obeyed
from trainjobs.data.shapes import COLOURS, SHAPES

BIN = Path(sys.executable).parent
MANIFEST = ROOT / "manifests" / "samples" / "diffusion-shapes.yaml"
PICTURE = ROOT / "docs" / "images" / "diffusion-shapes.png"
MARK = "GENTRAIN_BENCH_DEMO"
GUIDANCE = (1.0, 2.0, 3.0, 5.0)
EACH = 6  # pictures of each colour and shape
PROMPTS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


def processor_seconds(found: dict[int, float]) -> None:
    """Of every process with the mark, as it is now."""
    tick = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and MARK.encode() in (entry / "environ").read_bytes():
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry.name)] = (int(words[11]) + int(words[12])) / tick
        except OSError:  # it has ended
            continue


def trained(folder: Path) -> dict[str, float]:
    """The run, and its seconds."""
    environment, found = os.environ | {MARK: "1", "OMP_NUM_THREADS": "1"}, dict[int, float]()
    started = time.monotonic()
    process = subprocess.Popen([BIN / "gtj", "run", "-f", MANIFEST], cwd=folder, env=environment)
    while process.poll() is None:
        processor_seconds(found)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"seconds": round(time.monotonic() - started, 1), "processorSeconds": round(sum(found.values()), 1)}


def drawn(folder: Path, guidance: float) -> dict[str, Any]:
    """So many pictures of every prompt, judged."""
    (folder / "prompts").write_text("\n".join(PROMPTS))
    out = folder / f"guidance-{guidance:g}"
    count, prompts = EACH * len(PROMPTS), folder / "prompts"
    command = [BIN / "gtj", "sample", "diffusion-shapes", "--prompts", prompts, "--count", str(count), "--guidance", str(guidance)]
    subprocess.run([*command, "--out", out], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    told = json.loads((out / "samples.json").read_text())["drawn"]
    pictures = [torch.from_numpy(np.asarray(Image.open(out / one["file"]).convert("RGB"), np.float32) / 255) for one in told]
    colours, shapes = obeyed(torch.stack(pictures).permute(0, 3, 1, 2), [one["prompt"] for one in told])
    return {"guidance": guidance, "pictures": count, "colours": colours, "shapes": shapes}


def main(folder: Path) -> None:
    head = header("demo")
    took = trained(folder)
    rows = [drawn(folder, guidance) for guidance in GUIDANCE]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo.json").write_text(json.dumps({**head, **took, "obeyed": rows}, indent=1) + "\n")
    newest = max((folder / "gentrain-runs" / "diffusion-shapes" / "samples").glob("step-*.png"))
    with Image.open(newest) as grid:
        grid.resize((3 * grid.width, 3 * grid.height), Image.Resampling.NEAREST).save(PICTURE, optimize=True)
    print(took, *rows, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
