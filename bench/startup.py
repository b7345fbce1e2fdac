"""Seconds that `gtj --help` and `gtj validate` take beyond the interpreter's own start: each beside `python -c pass`, taking turns."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "pass": [sys.executable, "-c", "pass"],
    "help": [str(BIN / "gtj"), "--help"],
    "validate": [str(BIN / "gtj"), "validate", "-f", "manifests/samples/vae-digits.yaml"],
}


def measure(rounds: int) -> list[dict[str, float]]:
    """Seconds of each command, per round; the first round warms up and is left out."""
    results = []
    for _ in range(rounds + 1):
        row = {}
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            row[name] = time.perf_counter() - started
        results.append(row)
    return results[1:]
