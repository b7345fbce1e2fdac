"""Pictures that tables beside them name: in a folder, in a bucket and on the hub; with splits; and paths that climb out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.data.places.hubs import Serve
from tests.data.places.hubs import serve as serve
from tests.data.places.memory import MemoryBucket
from tests.data.places.memory import place as placed
from tests.data.real import made
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import found, look, open_source, origin_of, preflight
from trainjobs.data.source import Source
from trainjobs.noise import Noise

Make = Callable[..., Spec]
CUSTOM = {"objective": "tests.data.real.recorded:build"}
COUNT = 12
Rows = list[dict[str, Any]]


def table(name: str, rows: Rows) -> bytes:
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith(".csv"):
        return "".join(",".join(map(str, line)) + "\n" for line in [list(rows[0]), *(list(row.values()) for row in rows)]).encode()
    out = io.BytesIO()
    pq.write_table(pa.table({column: [row[column] for row in rows] for column in rows[0]}), out)
    return out.getvalue()


def files(name: str, column: str, *, folder: str = "pictures", path: Callable[[str], object] = str) -> dict[str, bytes]:
    """Pictures, and a table of them in `name`, which names all but two of them."""
    rows = [{column: path(f"{folder}/{number:03d}.png"), "kind": number % 3} for number in range(COUNT - 2)]
    return {**{f"{folder}/{number:03d}.png": made.picture(number) for number in range(COUNT)}, name: table(name, rows)}


def written(root: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return f"file://{root}"


def labels(source: Source) -> list[int]:
    positions = torch.arange(source.info.length)
    return sorted(source.batch(positions, 0, Noise.of(0, 0, "train", positions))["label"].tolist())


def spec(job: Make, source: str, column: str, **more: Any) -> Spec:
    data: dict[str, Any] = {"columns": {"image": column, "label": "kind"}, "images": {"size": 8}, "holdout": 0, **more}
    return job("custom", source, CUSTOM, **data)


@pytest.mark.parametrize("place", ["folder", "bucket", "hub"])
@pytest.mark.parametrize(
    ("name", "column", "format"), [("a.jsonl", "image", "auto"), ("a.csv", "path", "auto"), ("a.parquet", "file", "images")]
)
def test_each_row_is_the_picture_that_it_names(
    place: str, name: str, column: str, format: str, job: Make, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = files(name, column)
    if place == "bucket":
        bucket = MemoryBucket({f"data/{name}": data for name, data in there.items()})
        monkeypatch.setattr(found, "open_place", lambda uri, patience=None: placed(bucket, "data"))
        uri = "s3://bucket/data"
    elif place == "hub":
        serve({"org/named": there})
        uri = "hf://datasets/org/named"
    else:
        uri = written(tmp_path / "data", there)
    asked = spec(job, uri, column, format=format)
    assert f"2 pictures left out that no row of {name} names" in preflight(asked)
    looked = look(asked)
    source = open_source(asked, tmp_path / "cache", looked)
    assert source.info.length == COUNT - 2
    assert labels(source) == sorted(number % 3 for number in range(COUNT - 2))
    assert name in origin_of(asked, looked).files, "another table is other data"


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
@pytest.mark.parametrize("column", [None, "file_name"])
def test_the_convention_needs_no_column_and_takes_it(name: str, column: str | None, job: Make, tmp_path: Path) -> None:
    there = {file: data for file, data in files(name, "file_name").items() if file not in ("pictures/010.png", "pictures/011.png")}
    asked = spec(job, written(tmp_path / "data", there), "x").model_copy(deep=True)
    columns = {"label": "kind", **({"image": column} if column else {})}
    asked = job("custom", asked.data.uri, CUSTOM, columns=columns, images={"size": 8}, holdout=0)
    assert labels(open_source(asked, tmp_path / "cache")) == sorted(number % 3 for number in range(COUNT - 2))


def test_pictures_as_datasets_writes_those_that_lie_elsewhere(job: Make, tmp_path: Path) -> None:
    there = files("a.parquet", "image", path=lambda name: {"bytes": None, "path": name})
    assert open_source(spec(job, written(tmp_path / "data", there), "image", format="images"), tmp_path / "cache").info.length == COUNT - 2


def test_tables_of_splits_share_the_pictures(job: Make, tmp_path: Path) -> None:
    there = files("train.jsonl", "image")
    rows = [{"image": f"pictures/{number:03d}.png", "kind": 0} for number in (10, 11)]
    source = open_source(
        spec(job, written(tmp_path / "data", {**there, "val.jsonl": table("val.jsonl", rows)}), "image"), tmp_path / "cache"
    )
    assert (source.info.length, source.info.heldout) == (COUNT - 2, 2)


@pytest.mark.parametrize("skip", ["fail", "skip"])
@pytest.mark.parametrize("path", ["../secret.png", "pictures/../../secret.png", "/etc/secret.png", ".."])
@pytest.mark.parametrize("name", ["a.jsonl", "metadata.jsonl", "a.csv"])
def test_a_path_that_climbs_out_is_refused(name: str, path: str, skip: str, job: Make, tmp_path: Path) -> None:
    column = "file_name" if name.startswith("metadata") else "image"
    there = files(name, column)
    rows = [*({column: f"pictures/{number:03d}.png", "kind": 0} for number in range(COUNT)), {column: path, "kind": 0}]
    (tmp_path / "secret.png").write_bytes(made.picture(1))
    asked = spec(job, written(tmp_path / "data", {**there, name: table(name, rows)}), "image", onBadSample=skip)
    if name.startswith("metadata"):
        asked = job("custom", asked.data.uri, CUSTOM, columns={"label": "kind"}, images={"size": 8}, onBadSample=skip)
    for ask in (preflight, lambda asked: open_source(asked, tmp_path / "cache")):
        with pytest.raises(JobError) as caught:
            ask(asked)
        assert (caught.value.code, caught.value.exit_code) == ("GTJ0113", 7)
        assert caught.value.what == "a row names a picture outside of the data"
        assert path in caught.value.why
        assert caught.value.where.startswith(f"{tmp_path}/data/{name}:")


def test_a_column_that_no_table_has_is_told(job: Make, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="GTJ0102 the data has no column photo"):
        preflight(spec(job, written(tmp_path / "data", files("a.jsonl", "image")), "photo"))
