"""Like ../equivalence/worker.py, and writes down what every run was restored to, before it goes on.

Each rank leaves RUN/restored-SIZE-RANK.pt, which test_restorer_before.py puts together. All that it knows of the trainer is in this
file.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.equivalence import worker
from trainjobs.checkpointer.restorer import Restorer

_restore = Restorer.restore


def restore(self: Any, *arguments: Any, **options: Any) -> Any:
    commit = _restore(self, *arguments, **options)
    trained = self.trained
    pieces = []  # (key, shape of the whole, first element, elements)
    for name, engine in trained.engines.items():
        for part in trained.parts(name, own=False):
            pieces.append((f"{name}/{part.slice.key}", list(part.slice.shape), part.slice.start, part.tensor.reshape(-1).clone()))
        parameters = [parameter for _, parameter in engine.trained]
        with engine.whole(parameters):  # what the network computes with, beside what the optimizer has
            for path, parameter in engine.trained:
                live = parameter.detach()
                pieces.append((f"{name}/live/{path}", list(live.shape), 0, live.reshape(-1).clone()))
    keeps = trained.keeps["objective"].state() if "objective" in trained.keeps else None
    found = {"pieces": pieces, "step": trained.state.step, "samples": trained.state.samples, "objective": keeps}
    losses = trained.keeps["losses"].state() if "losses" in trained.keeps else None
    torch.save({**found, "losses": losses}, self.scratch / f"restored-{self.world.size}-{self.world.rank}.pt")
    return commit


Restorer.restore = restore  # type: ignore[method-assign]

if __name__ == "__main__":
    worker.main()
