"""How a global batch is cut into workers, micro-batches and accumulation."""

from __future__ import annotations

from dataclasses import dataclass

from trainjobs.api.training import Batch


@dataclass(frozen=True)
class Cut:
    """global = workers * micro * accumulation."""

    workers: int
    micro: int
    accumulation: int

    @property
    def size(self) -> int:
        """Samples of the global batch."""
        return self.workers * self.micro * self.accumulation

    def rows(self, rank: int, turn: int) -> range:
        """Rows of the global batch that `rank` sees in its micro-batch number `turn`.

        Turn by turn, so that the first turn of all workers together is the first part of the batch.
        """
        start = (turn * self.workers + rank) * self.micro
        return range(start, start + self.micro)


def cut(batch: Batch, workers: int, most: int = 1) -> Cut:
    """The cut for so many workers; the rules of the API have checked that it comes out even.

    Without a micro-batch in the manifest it is a worker's whole part, but of a group that may have up to `most` workers never more than
    its part then: what fits into the memory of one of many must fit when the group has become small.
    """
    micro = batch.micro or largest_divisor(batch.global_ // workers, batch.global_ // most)
    result = Cut(workers, micro, batch.global_ // (workers * micro))
    assert result.size == batch.global_, "an uneven batch is GTJ0103"
    return result


def largest_divisor(part: int, most: int) -> int:
    """The largest divisor of `part` that is not above `most`; at least 1."""
    return next((size for size in range(min(part, max(1, most)), 0, -1) if part % size == 0), 1)
