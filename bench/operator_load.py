"""Creates jobs, from a process of its own, so that what it costs is not the operator's: the load of bench/operator_speed.py.

python -m bench.operator_load <kubeconfig> <namespace> <prefix> <count> <jobs a second; 0: as fast as it goes> [<profile> <queue>]
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.resource import JOBS, Object

EVERY = 3  # of the jobs with a profile one waits in the queue


def manifest(name: str, compute: Object | None = None) -> Object:
    """A VAE on two workers, as a user would write it; on CPUs, unless `compute` says else."""
    spec = {
        "vae": {"network": {"latentDim": 16, "channels": 32}},
        "data": {"source": "s3://datasets/faces", "images": {"size": 64}},
        "training": {"steps": 10000, "batch": {"global": 256}, "optimizers": {"default": {"name": "adamw", "learningRate": 1e-3}}},
        "compute": {"workers": 2, **(compute or {"gpusPerWorker": 0})},
        "checkpoints": {"uri": f"s3://runs/{name}", "every": {"steps": 1000}},
    }
    return {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": {"name": name}, "spec": spec}


def compute(number: int, profile: str, queue: str) -> Object:
    """On CPUs; with a profile on a GPU each, every third in the queue."""
    if not profile:
        return {"gpusPerWorker": 0}
    return {"gpusPerWorker": 1, "profiles": [profile], **({} if number % EVERY else {"queue": queue})}


def main(kubeconfig: str, namespace: str, prefix: str, count: int, rate: float, profile: str = "", queue: str = "") -> None:
    client = Client(from_kubeconfig(kubeconfig))
    began = time.monotonic() + 0.1

    def create(number: int) -> None:
        time.sleep(max(0.0, began + number / rate - time.monotonic()) if rate else 0.0)
        client.create(JOBS, namespace, manifest(f"{prefix}-{number}", compute(number, profile, queue)))

    with ThreadPoolExecutor(8) as pool:
        for done in pool.map(create, range(count)):
            assert done is None


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]), *sys.argv[6:])
