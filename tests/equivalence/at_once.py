"""Like worker.py, with checkpoints that are uploaded by the worker's own process: for many short runs."""

from __future__ import annotations

from tests.checkpointer.at_once import AtOnce
from tests.equivalence import worker
from trainjobs.checkpointer import saver

saver.Uploader = AtOnce  # type: ignore[misc, assignment]

if __name__ == "__main__":
    worker.main()
