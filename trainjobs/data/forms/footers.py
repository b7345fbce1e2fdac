"""What a file of Parquet says of itself at its end: rows of each row group, columns and their kinds, names of classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from trainjobs.api.data import ROLES
from trainjobs.api.errors import JobError
from trainjobs.data.forms.index import Arrays, packed, unpacked
from trainjobs.data.forms.ranges import Ranged, Read
from trainjobs.data.forms.records import Kind
from trainjobs.data.places.place import Object, Place

WIDEST = 10_000  # columns
FOOTER = 256 * 1024 * 1024  # bytes
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Shard:
    """`groups`: int64 rows of each row group. `classes` are the names of a column's numbers."""

    object: Object
    groups: npt.NDArray[np.int64]
    kinds: Mapping[str, Kind]
    types: Mapping[str, str]
    classes: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, found: Object, arrays: Arrays) -> Shard:
        told = unpacked(arrays["told"])
        return cls(found, arrays["groups"], told["kinds"], told["types"], told["classes"])


def footer(place: Place, found: Object, read: Read) -> Arrays:
    """The index of a shard: rows of each row group, and columns with kinds, types and names of classes."""
    where = place.where(found)
    end = read(max(0, found.size - 8), found.size)
    length = int.from_bytes(end[:4], "little") if len(end) == 8 else 0
    if end[4:] != _MAGIC or read(0, 4) != _MAGIC or length + 12 > found.size:
        why = "it is encrypted" if end[4:] == b"PARE" else f"its {found.size:,} bytes do not begin and end as Parquet does"
        how = "copy it again: it may be cut short" if end[4:] != b"PARE" else "write it without encryption"
        raise JobError("GTJ0113", f"{found.name} is not Parquet", where=where, why=why, how=how)
    if length > FOOTER:
        raise _wide(place, found, f"its footer has {length:,} bytes")
    try:
        # The number of columns is asked for before anything is made of each.
        metadata = pq.read_metadata(Ranged(read, found.size))
        if metadata.num_columns > WIDEST:
            raise _wide(place, found, f"it has {metadata.num_columns:,} columns")
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        if "size limit" in str(error):  # Arrow's own, of a million entries
            raise _wide(place, found, "it has about a million") from error
        raise broken(where, found.name, error) from error
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    features = _features(schema)
    columns = {name: kind(schema.field(name), features.get(name)) for name in dict.fromkeys(schema.names)}
    told = {
        "kinds": columns,
        "types": {name: str(schema.field(name).type) for name in columns},
        "classes": {
            name: feature["names"] for name, feature in features.items() if name in columns and isinstance(feature.get("names"), list)
        },
    }
    return {"rows": np.array(sum(groups)), "groups": np.array(groups, dtype=np.int64), "told": packed(told)}


def kind(column: Any, feature: Mapping[str, Any] | None) -> Kind:
    """Of a field of Arrow's, and what `datasets` says of it."""
    shape, types = column.type, pa.types
    if isinstance(shape, pa.BaseExtensionType):
        shape = shape.storage_type
    if types.is_dictionary(shape):
        shape = shape.value_type
    said = (feature or {}).get("_type")
    if types.is_struct(shape):
        inner = {shape.field(number).name: shape.field(number).type for number in range(shape.num_fields)}
        held = inner.get("bytes")
        picture = set(inner) == {"bytes", "path"} and (types.is_binary(held) or types.is_large_binary(held)) and said in (None, "Image")
        return "image" if picture else "record"
    if types.is_binary(shape) or types.is_large_binary(shape) or types.is_fixed_size_binary(shape):
        return "image" if said == "Image" or column.name.lower() in ROLES["image"] else "bytes"
    if types.is_boolean(shape):
        return "boolean"
    if types.is_integer(shape):
        return "integer"
    if types.is_floating(shape) or types.is_decimal(shape):
        return "number"
    if types.is_list(shape) or types.is_large_list(shape) or types.is_fixed_size_list(shape):
        return "list"
    return "record" if types.is_map(shape) else "text"


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` keeps of its columns; {} where there is nothing, or nothing that can be read."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in told.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _wide(place: Place, found: Object, why: str) -> JobError:
    how = f"write at most {WIDEST:,} columns; what belongs together goes into one, as a list"
    return JobError("GTJ0113", f"{found.name} has too many columns", where=place.where(found), why=why, how=how)


def broken(where: str, name: str, error: Exception) -> JobError:
    why = " ".join(str(error).split())[:200]
    return JobError("GTJ0113", f"{name} cannot be read as Parquet", where=where, why=why, how="copy it again, or write it again")
