"""What goes with heldout/instance, which is measured over the pictures that are trained on."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.job import Spec
from trainjobs.api.metrics import NEVER_HELD as INSTANCE
from trainjobs.api.quality import decisive
from trainjobs.api.rule import Breach, Rule


def pictures_are_all_there(spec: Spec) -> Iterator[Breach]:
    """It looks at the first epoch's pictures, in which a curriculum has others again and again, or small ones."""
    if spec.data.curriculum is not None and ("instance" in spec.evaluation.metrics or INSTANCE in decisive(spec)):
        what, why = f"{INSTANCE} beside data.curriculum", "it is of all training pictures, as they are"
        yield Breach(("data", "curriculum"), what, why, "keep one of them", on_key=True)


_ASKED = " || ".join(
    [
        "'instance' in self.evaluation.metrics",
        f"(has(self.checkpoints.keep.best) && self.checkpoints.keep.best.metric == '{INSTANCE}')",
        f"(self.training.schedule.name == 'plateau' && self.training.schedule.metric == '{INSTANCE}')",
        f"(has(self.training.earlyStopping) && self.training.earlyStopping.metric == '{INSTANCE}')",
    ]
)

RULES = (
    Rule(
        "spec",
        "GTJ0108",
        pictures_are_all_there,
        f"!has(self.data.curriculum) || !({_ASKED})",
        f"{INSTANCE} is of all training pictures, as they are, and data.curriculum begins with some of them",
    ),
)
