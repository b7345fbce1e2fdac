"""The disk that tokens may take: what is larger is told before the disk is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainjobs.api.errors import JobError
from trainjobs.data.files import megabytes

Document = tuple[str, str, bool]  # as of documents.Texts


@dataclass
class Room:
    """`limit` bytes for the tokens of a source, which is called `source`; None for as much as there is. `documents` is how many it has, 0
    where nobody knows."""

    limit: int | None = None
    source: str = ""
    documents: int = 0
    _read: int = 0

    def expect(self, need: int) -> None:
        """See that what takes so many bytes fits, before any of it is made. JobError GTJ0114."""
        if self.limit is not None and need > self.limit:
            raise self._larger(self.limit, f"they take {megabytes(need)} of the disk", need)

    def reading(self, read: Callable[[], Iterator[Document]]) -> Iterator[Document]:
        """The documents, counted."""
        for document in read():
            self._read += 1
            yield document

    def taken(self, rows: Iterator[tuple[bool, bytes]]) -> Iterator[tuple[bool, bytes]]:
        """The tokens of one part after the other, as long as they fit. JobError GTJ0114."""
        size = 0
        for is_held, row in rows:
            size += len(row)
            if self.limit is not None and size > self.limit:
                need = max(size, size * self.documents // self._read) if self._read else size
                said = f"about {megabytes(need)}" if self.documents else f"more than {megabytes(size)}"
                raise self._larger(self.limit, f"they take {said} of the disk", need)
            yield is_held, row

    def _larger(self, limit: int, why: str, need: int) -> JobError:
        why = f"{why}, and {megabytes(limit)} of data.cache is for them"
        how = f"raise data.cache by {megabytes(2 * (need - limit))} or more, or learn from less of it: data.where, data.limit"
        return JobError("GTJ0114", "the tokens are larger than data.cache", where=self.source, why=why, how=how)
