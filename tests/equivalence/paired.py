"""Like worker.py, for jobs whose samples are pairs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import carried

from tests.equivalence import worker
from trainjobs import loop

_open = loop.open_source
loop.open_source = lambda spec, cache, found, **began: carried.Pairs(_open(spec, cache, found, **began))  # type: ignore[assignment]

if __name__ == "__main__":
    worker.main()
