"""What is said when a cache cannot take what is to be read."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.data.files import megabytes
from trainjobs.data.places.claims import room
from trainjobs.data.places.place import Object, Place

FULL = (errno.ENOSPC, errno.EDQUOT)


def too_large(place: Place, wanted: Sequence[Object], limit: int) -> JobError:
    """For what can never be here at once."""
    need = sum(room(each.size) for each in wanted)
    what, takes = f"{wanted[0].name} is larger than data.cache", "it takes"
    if len(wanted) > 1:
        what, takes = f"{len(wanted):,} objects that are read together are larger than data.cache", "they take"
    why = f"{takes} {megabytes(need)} of the disk, and the limit is {megabytes(limit)}"
    how = f"raise data.cache to several times {megabytes(need)}, or write the data in smaller pieces"
    return JobError("GTJ0114", what, where=place.where(wanted[0]), why=why, how=how)


def in_use(folder: Path, wanted: Sequence[Object], limit: int, waited: float) -> JobError:
    """For what would fit if others released what they hold, which they did not."""
    need = megabytes(sum(room(each.size) for each in wanted))
    why = f"{need} are needed, the limit is {megabytes(limit)}, and nothing was released in {waited:.0f} s"
    how = f"raise data.cache by {need} or more, or lower data.workers"
    return JobError("GTJ0114", "all of the data's cache is in use", where=str(folder), why=why, how=how)


def unwritable(folder: Path, error: OSError) -> JobError:
    where, why = str(error.filename or folder), error.strerror or str(error)
    if error.errno in FULL:
        how = "free space there, or set data.cache to less than what is free"
        return JobError("GTJ0114", "the disk is full while data is fetched", where=where, why=why, how=how)
    if error.errno == errno.ENOLCK:
        how = "choose a run folder on a local disk"
        return JobError("GTJ0114", "the data's cache is on a file system without locks", where=where, why=why, how=how)
    how = "mend its permissions, or choose another run folder"
    return JobError("GTJ0114", "the data's cache cannot be written", where=where, why=why, how=how)


def cut(place: Place, wanted: Object, size: int) -> JobError:
    """For an object of which less, or more, came than was listed: on its way, or because somebody writes it."""
    why = f"it has {wanted.size:,} bytes, and {size:,} arrived"
    how = "start the run again, when nobody writes the data any more"
    return JobError("GTJ0113", f"{wanted.name} did not arrive whole", where=place.where(wanted), why=why, how=how)
