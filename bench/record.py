"""What stands at the head of every recorded run: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.training import SEED

ROOT = Path(__file__).resolve().parent.parent


RESULTS = ROOT / "bench" / "results"


PACKAGES = ("torch", "deepspeed", "ray", "transformers", "numpy", "pydantic", "click", "kubernetes")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.processor())
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memoryGiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "loadBefore": round(os.getloadavg()[0], 2),
    }


def header(name: str) -> dict[str, Any]:
    """What is said beside every result."""
    head = {"name": name, "date": time.strftime("%Y-%m-%d"), "commit": commit(), "seed": SEED, "machine": machine()}
    return head | {"versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}}


def commit() -> str:
    """ "unknown" where the tree is no clone."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
