"""Run benchmarks, write bench/results/<name>.json for each, and make docs/benchmarks.md from all of them.

python -m bench.run [training-gan training-vae training-diffusion training-language peers lazy lora evaluation-cost checkpoints
                     record-cost gan-losses data language smollm2 first-step demo-start scale startup probe operator operator-restart
                     operator-scale operator-nodes endurance] [--beside "tests, on the other core"]

`--beside` is for a machine that is not idle: what else ran on it is said with the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import (
    demo_start,
    endurance,
    evaluation_cost,
    first_step,
    language,
    lazy,
    operator_nodes,
    operator_scale,
    operator_speed,
    peers,
    smollm2,
    startup,
)
from bench.record import RESULTS, ROOT, header
from bench.table import written
from bench.training import FAMILIES


def alone(module: str, *arguments: str) -> Any:
    """In a process of its own: one thread from the start, and nothing left over from the benchmark before."""
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


BENCHMARKS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    **{f"training-{family}": lambda family=family: alone("bench.training", family, "7") for family in FAMILIES},  # type: ignore[misc]
    "peers": lambda: peers.measure(3, ROOT),
    "lazy": lambda: [{"case": name, "pairs": alone("bench.lazy", name, "7")} for name in lazy.CASES],
    "lora": lambda: alone("bench.lora", "7"),
    "evaluation-cost": lambda: [alone("bench.evaluation_cost", name) for name in evaluation_cost.FEATURES for _ in range(3)],
    "checkpoints": lambda: alone("bench.checkpoints", "7"),
    "record-cost": lambda: alone("bench.record_cost", "7"),
    "gan-losses": lambda: alone("bench.gan_losses"),
    "data": lambda: alone("bench.data", "3"),
    "language": lambda: language.measure(7, ROOT),
    "smollm2": smollm2.measure,
    "first-step": lambda: first_step.measure(7),
    "demo-start": lambda: demo_start.measure(3),
    "scale": lambda: alone("bench.scale"),
    "startup": lambda: startup.measure(21),
    "probe": lambda: alone("bench.probe", "10"),
    "operator": operator_speed.speed,
    "operator-restart": operator_speed.restart,
    "operator-scale": operator_scale.scale,
    "operator-nodes": operator_nodes.nodes,
    "endurance": endurance.measure,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--beside", metavar="WORDS", default="")
    told = parser.parse_args(arguments)
    names: list[str] = told.names
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(exist_ok=True)
    for name in names or BENCHMARKS:
        print(f"{name} ...", flush=True)
        head = header(name) | ({"beside": told.beside} if told.beside else {})
        started = time.monotonic()
        rows = BENCHMARKS[name]()
        head["seconds"] = round(time.monotonic() - started)
        (RESULTS / f"{name}.json").write_text(json.dumps({**head, "pairs": rows}, indent=1) + "\n")
    written()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
