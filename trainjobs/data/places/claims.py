"""How much of a cache an object takes, and what became of a wish for several."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 4096  # bytes: what a file takes of a disk is a multiple of it


@dataclass(frozen=True)
class Claim:
    """Of the objects wanted: those here, held now; those to be fetched by who claimed them; those that somebody else fetches."""

    here: tuple[str, ...]
    mine: tuple[str, ...]
    others: tuple[str, ...]


@dataclass
class Counts:
    """What this process did, since it began."""

    fetched: int = 0  # objects
    fetched_bytes: int = 0
    dropped: int = 0
    dropped_bytes: int = 0


def room(size: int) -> int:
    """Of the disk, in bytes, for so many bytes."""
    return -(-size // BLOCK) * BLOCK
