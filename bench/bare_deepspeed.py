"""A bare DeepSpeed script, as started by `torchrun`: the peer of `gtj run` in bench/first_step.py.

The same network, data, batch and ZeRO stage as the job whose manifest is given, and nothing else: no checkpoint, no metrics. It writes
the time at which its first optimizer step ended, and stops.

    torchrun --nproc-per-node 2 bench/bare_deepspeed.py <manifest.json> <file for the time>
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import torch

from trainjobs.api.job import Job
from trainjobs.data import open_source
from trainjobs.noise import Noise
from trainjobs.objectives.build import build


def main(manifest: Path, answer: Path) -> None:
    job = Job.model_validate(json.loads(manifest.read_text()))
    # Without this line DeepSpeed would compile an op for a minute, or load it for 0.2 s: the peer shall be at its best.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    source = open_source(job.spec, manifest.parent / "cache")
    torch.manual_seed(job.spec.training.seed)
    network = build(job.spec, source.info).modules["autoencoder"]
    micro = job.spec.training.batch.global_ // world
    config = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": job.spec.deepspeed.stage},
        "gradient_clipping": 0.0,
    }
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
    rows = torch.arange(micro) + rank * micro
    x = source.batch(rows, 0, Noise.of(0, 0, "bench", rows))["image"]
    output, mean, logvar = engine(torch.randn(micro, 16), x)
    loss = (0.5 * (x - output).square().sum() + 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()) / micro
    engine.backward(loss)
    engine.step()
    if rank == 0:
        answer.write_text(str(time.time()))
    os._exit(0)  # gloo's threads now and then abort an interpreter that is taken down in order


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
