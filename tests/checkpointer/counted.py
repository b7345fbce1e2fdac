"""An objective with state of its own, for which order, nesting and every bit of a float count."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.e2e_local.mean import Mean


class Counted(Mean):
    """`third` is a float that only all of its digits restore: it depends on the number of micro-batches alone, so ranks agree on it."""

    def __init__(self) -> None:
        super().__init__()
        self.third, self.last = 0.0, [0]

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls, "nested": {"third": self.third, "last": self.last}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.calls, self.third, self.last = state["calls"], state["nested"]["third"], list(state["nested"]["last"])

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        self.third, self.last = self.third + 1 / (3 * self.calls), [*self.last[-2:], self.calls]
        return super().loss(batch)


def build(spec: Any, info: Any) -> Any:
    return Counted().built()
