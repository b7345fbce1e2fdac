"""As worker.py, and keeps what each rank draws within a step: `<run>/drawn-<rank>-<number>.pt`, its tokens, how many processor seconds the
drawing took, and in how many passes of the network. One token in six is the end, by its noise: rows end early, and at other lengths.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import worker

from trainjobs.objectives.language import completing, drawing

END = 256  # of bytes, and of the bases
number = 0


def main() -> None:
    original, rank = completing.complete, sys.argv[1]
    train = worker.train

    def complete(model: Any, *given: Any, **more: Any) -> Any:
        global number
        began, passes = time.process_time(), 0

        def passed(*_: Any) -> None:
            nonlocal passes
            passes += 1

        handle = model.register_forward_pre_hook(passed)
        tokens, count = original(model, *given, **more)
        handle.remove()
        took = time.process_time() - began
        torch.save({"tokens": tokens, "count": count, "seconds": took, "passes": passes}, run / f"drawn-{rank}-{number:03d}.pt")
        number += 1
        return tokens, count

    def noted(job: Any, folder: Path, *given: Any, **more: Any) -> Any:
        global run, number
        run, number = folder, 0
        return train(job, folder, *given, **more)

    original_draw = drawing.draw
    drawing.draw = lambda logits, uniform: torch.where(uniform < 1 / 6, END, original_draw(logits, uniform))
    completing.complete = complete
    worker.train = noted
    worker.main()


run = Path()

if __name__ == "__main__":
    main()
