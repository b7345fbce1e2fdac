"""Which place a URI names."""

from __future__ import annotations

from trainjobs.api.errors import JobError
from trainjobs.data.places.bucket import BucketPlace
from trainjobs.data.places.folder import FolderPlace
from trainjobs.data.places.glob import parse
from trainjobs.data.places.place import Place
from trainjobs.stores.open import SHAPES, clean, open_bucket
from trainjobs.stores.patience import Patience

AMID, BEFORE = 600.0, 20.0  # seconds for which a request is repeated amid a run, and before there is one


def open_place(uri: str, *, patience: Patience | None = None) -> Place:
    """The place that a URI names; of a bucket or a folder nothing is asked yet. `patience`: Patience(AMID), unless told. JobError."""
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return FolderPlace(uri)
    if scheme == "hf":
        from trainjobs.data.places.hub import open_hub

        return open_hub(uri, patience=patience or Patience(AMID))
    if scheme not in SHAPES:
        how = "use file:///folder, " + ", ".join(SHAPES.values()) + ", hf://datasets/organisation/name"
        raise JobError("GTJ0107", "data cannot be read from there", where=uri, how=how)
    clean(uri)
    names = 2 if scheme == "az" else 1  # an account and a container, or a bucket
    parts = rest.split("/", names)
    bucket = open_bucket(f"{scheme}://{'/'.join(parts[:names])}")
    path = parts[names] if len(parts) > names else ""
    try:
        pattern = parse(path)
    except ValueError as error:
        raise JobError("GTJ0107", "not a pattern that can be read", where=uri, why=str(error), how="mend data.source") from None
    return BucketPlace(bucket, uri.rstrip("/"), path, pattern, patience or Patience(AMID))
