"""As worker.py with checkpoints that are uploaded at once; a run `RUN=N` is killed, with all of its processes, when N steps are done."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import worker

from trainjobs.monitor.reporter import Reporter


def main() -> None:
    last = sys.argv[-1].partition("=")
    sys.argv[-1] = last[0]
    original = Reporter.orders

    def orders(self: Reporter, now: int) -> Any:
        if last[2] and now == int(last[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, now)

    Reporter.orders = orders  # type: ignore[method-assign]
    worker.main()


if __name__ == "__main__":
    main()
