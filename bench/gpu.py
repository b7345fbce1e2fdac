"""The trainer on one GPU: samples per second beside a plain torch loop, model FLOPs utilisation, memory, and what a checkpoint costs.

`python -m bench.gpu` runs every case in a process of its own and writes them to bench/results/gpu.json, as far as it has come. Such a
process is `python -m bench.gpu case <name>`, and prints JSON. MFU counts 6 FLOPs for each parameter of a matrix product and token, and the
causal half of attention's scores (Chowdhery et al., "PaLM", 2022, appendix B), against the dense bf16 rate of the card's data sheet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainjobs.models.configuration import feed_forward

SHAPES = {"source": "builtin:shapes", "images": {"size": 64, "channels": 3}}
GPT2 = {"layers": 12, "hidden": 768, "heads": 12, "contextLength": 1024}
LLAMA = {"architecture": "llama", "layers": 16, "hidden": 2048, "heads": 16, "contextLength": 2048}
TEXT = {"source": "builtin:stdlib-text"}
CASES: dict[str, dict[str, Any]] = {
    "gan": {
        "model": {"gan": {"generator": {"latentDim": 64, "channels": 128}, "discriminator": {"channels": 128}, "loss": {"type": "bce"}}},
        "data": SHAPES,
        "batch": 256,
        "steps": 110,
        "pairs": 5,
    },
    "vae": {"model": {"vae": {"network": {"latentDim": 16, "channels": 64}}}, "data": SHAPES, "batch": 256, "steps": 60, "pairs": 3},
    "diffusion": {
        "model": {"diffusion": {"network": {"channels": 128, "multipliers": [1, 2, 2]}, "process": {"schedule": "cosine"}}},
        "data": SHAPES,
        "batch": 64,
        "steps": 40,
        "pairs": 3,
    },
    "language": {"model": {"language": {"network": GPT2}}, "data": TEXT, "batch": 32, "steps": 40, "pairs": 3},
    "language-0.8B": {"model": {"language": {"network": LLAMA}}, "data": TEXT, "batch": 8, "steps": 30, "pairs": 1},
    "language-0.8B-zero2": {"model": {"language": {"network": LLAMA}}, "data": TEXT, "batch": 8, "steps": 30, "stage": 2, "pairs": 1},
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, FLOP/s


def flops_per_token(network: dict[str, Any], vocabulary: int) -> float:
    """Of forward and backward pass, by the matrix products alone."""
    hidden, layers, context = network["hidden"], network["layers"], network["contextLength"]
    inner = 3 * feed_forward(hidden) if network.get("architecture") == "llama" else 8 * hidden
    return 6.0 * (layers * (4 * hidden * hidden + inner * hidden) + hidden * vocabulary) + 6.0 * layers * hidden * context


def training(name: str) -> dict[str, Any]:
    import torch

    from bench.training import measure

    case = CASES[name] | {"precision": "bf16"}
    found: dict[str, Any] = {"pairs": measure(name.partition("-")[0], case, case["pairs"], "cuda")}
    found["peakBytes"] = torch.cuda.max_memory_allocated()
    if language := case["model"].get("language"):
        found["flopsPerSample"] = flops_per_token(language["network"], 257) * language["network"]["contextLength"]
    return found


WIDTH, LAYERS, BATCH, EVERY = 4096, 16, 16384, 20  # 268 million parameters, 3.2 GB of checkpoint


def checkpoint(name: str) -> dict[str, Any]:
    """Seconds in each of some rounds: copying what is saved to pinned memory, a save that nothing hides, steps without and with one."""
    import torch
    import torch.distributed as dist

    from bench import checkpoints as cpu
    from trainjobs.checkpointer.trained import Trained
    from trainjobs.engine.engine import connect
    from trainjobs.state import State
    from trainjobs.world import World, backend

    cpu.WIDTH, cpu.LAYERS, cpu.BATCH = WIDTH, LAYERS, BATCH
    world = World(0, 1, torch.device("cuda", 0))
    dist.init_process_group(backend(True), store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    connect(world)
    trained = Trained({"net": cpu.engine(cpu.Network(), world)}, State(), None)
    x = torch.randn(BATCH, WIDTH, device="cuda")
    cpu.step(trained, x)
    floor = [torch.empty(part.tensor.numel(), dtype=part.tensor.dtype, pin_memory=True) for part in trained.parts("net", own=True)]
    size = sum(part.slice.bytes for part in trained.parts("net", own=True))
    rounds = []

    def timed(act: Any) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        act()
        torch.cuda.synchronize()
        return time.perf_counter() - began

    def copy() -> None:
        for into, part in zip(floor, trained.parts("net", own=True), strict=True):
            into.copy_(part.tensor.reshape(-1), non_blocking=True)

    def steps(saved: bool) -> None:
        for number in range(EVERY):
            if saved and number == 0:
                saver.save({})
            cpu.step(trained, x, saver.settle)

    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    with cpu.saving(trained, f"file://{folder}/runs", folder, world) as saver:
        saver.save({})
        saver.finish(required=True)
        for number in range(7):
            turn = {"copy": timed(copy)}
            cpu.step(trained, x)
            turn["blocking"] = timed(lambda: (saver.save({}), saver.settle()))
            saver.finish(required=True)
            for saved in (True, False) if number % 2 else (False, True):
                turn["lazy" if saved else "plain"] = timed(lambda saved=saved: steps(saved))
                saver.finish(required=True)
            rounds.append(turn)
    shutil.rmtree(folder)
    return {"bytes": size, "every": EVERY, "rounds": rounds}


def main() -> int:
    if sys.argv[1:2] == ["case"]:
        from trainjobs.workers.process import leave

        print(json.dumps({"checkpoint": checkpoint}.get(sys.argv[2], training)(sys.argv[2])), flush=True)
        leave(0)
    import torch

    from bench.record import RESULTS, header

    card = {"gpu": torch.cuda.get_device_name(0), "gpuMemoryGiB": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)}
    found = header("gpu")
    found |= {"machine": found["machine"] | card, "cases": {}}
    environment = os.environ | {"OMP_NUM_THREADS": "8", "DS_ACCELERATOR": "cuda"}
    failed = 0
    for name in sys.argv[1:] or [*CASES, "checkpoint"]:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "bench.gpu", "case", name], env=environment, stdout=subprocess.PIPE, text=True)
        print(f"{name}: status {done.returncode}, {time.monotonic() - began:.0f} s", flush=True)
        failed += bool(done.returncode)
        if not done.returncode:
            found["cases"][name] = json.loads(done.stdout.splitlines()[-1])
            (RESULTS / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
