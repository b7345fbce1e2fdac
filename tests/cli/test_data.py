"""gtj data: what is printed of a data set, and where its first samples go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.data.places.hubs import Serve
from tests.data.places.hubs import serve as serve
from trainjobs.api.errors import JobError
from trainjobs.cli.main import gtj
from trainjobs.cli.survey import printed
from trainjobs.data.survey import Column, Histogram, Survey

JOB = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {{name: faces}}
spec:
  {family}
  data: {data}
  training: {{steps: 1}}
"""
FAMILIES = {
    "vae": "vae: {}",
    "language": "language: {}",
    "gan": "gan: {generator: {architecture: mlp}, discriminator: {architecture: mlp}}",
}
FULL = Survey(
    "hf://datasets/org/faces@0123456789abcdef",
    ("webdataset, 128 shards, 1,281,167 samples, jpg + cls", "split test (3 files) left out"),
    (Column("jpg", "image", "image", "500 x 375 JPEG, 0.1 MB"), Column("a_very_long_name_of_a_column.that_goes_on", "text", "", "x" * 48)),
    1_281_167,
    50_000,
    128,
    143_200_000_000,
    True,
    1_281_167,
    2000,
    Histogram("shorter side, in pixels", ((64, 127, 1), (128, 255, 0), (256, 511, 1999)), 70, 500),
    (("cat", 3), ("dog", 1)),
    (("a", "b", "c", "d", "e"), ("f", "g")),
    5,
    (("s3://bucket/1.tar/000017", "it is cut short"),),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(family: str, data: str, *options: str) -> Result:
    Path("job.yaml").write_text(JOB.format(family=FAMILIES[family], data=data))
    return CliRunner().invoke(gtj, ["data", "-f", "job.yaml", *options], standalone_mode=False)


def test_all_that_is_known_is_printed_in_80_columns() -> None:
    text = printed([FULL], 80)
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "hf://datasets/org/faces@0123456789abcdef\n  webdataset, 128 shards, 1,281,167 samples, jpg + cls\n",
        "  split test (3 files) left out\n\n  column               role    kind    example\n",
        "  jpg                  image   image   500 x 375 JPEG, 0.1 MB\n",
        "  samples         1,281,167 to train on, 50,000 held out\n  size            143.2 GB in 128 files\n",
        "  looked at       2,000 samples, evenly spread\n  labels          cat (3), dog (1)\n",
        "  duplicates      5 of 2,000 looked at are copies of others\n                  a = b = c and 2 more\n                  f = g\n",
        "  cannot be read  s3://bucket/1.tar/000017: it is cut short\n",
        "  shorter side, in pixels: 70 to 500\n   64 to 127  █ 1\n  128 to 255\n  256 to 511  ██████████████████████████████ 1,999",
    ):
        assert words in text
    assert "\n  a_very_long_nam" in text


def test_names_from_outside_are_no_markup() -> None:
    odd = Survey("file:///x", ("text",), (Column("[red]", "text", "", ":smile: [b]x"),), 1, 0, 1, 10)
    assert "[red]" in printed([odd], 80)
    assert ":smile: [b]x" in printed([odd], 80)
    assert "1 to train on, none held out" in printed([odd], 80)


def test_an_estimate_is_called_one() -> None:
    assert "  samples         about 90 to train on, about 10 held out\n" in printed([Survey("x", (), (), 90, 10, 1, 1, exact=False)], 80)


def test_several_sources_follow_one_another() -> None:
    assert printed([FULL, FULL], 80) == f"{printed([FULL], 80)}\n\n{printed([FULL], 80)}"


def test_what_is_built_in(here: Path) -> None:
    done = invoke("vae", "{source: builtin:digits, images: {size: 8, channels: 1}}")
    assert done.return_value == 0, done.stderr
    assert "1797 images, 8x8 grey" in done.stdout
    assert "1,707 to train on, 90 held out" in done.stdout
    assert "first samples   data.png" in done.stdout
    assert Image.open(here / "data.png").width > 800
    assert sorted(path.name for path in here.iterdir()) == ["data.png", "job.yaml"], "no run is begun, no cache is left"


def test_texts_are_printed_with_their_tokens(here: Path) -> None:
    done = invoke("language", "{source: builtin:stdlib-text}", "--out", "seen/first.txt")
    assert done.return_value == 0, done.stderr
    assert "text 1, │ between tokens, ▮ where a document ends\n" in done.stdout
    assert (here / "seen" / "first.txt").read_text(encoding="utf-8").startswith("--- 1 ---\n")


def test_it_is_data_for_programs(here: Path) -> None:
    done = invoke("gan", "{source: builtin:ring}", "-o", "json")
    data = json.loads(done.stdout)
    assert (data["name"], data["samples"], data["sources"][0]["source"]) == ("faces", "data.png", "builtin:ring")
    assert json.loads(invoke("gan", "{source: builtin:ring}", "-o", "json", "--no-picture").stdout)["samples"] is None


def test_a_picture_that_cannot_be_written(here: Path) -> None:
    (here / "file").write_text("")
    done = invoke("gan", "{source: builtin:ring}", "--out", "file/x.png")
    assert isinstance(done.exception, JobError)
    assert done.exception.code == "GTJ0114"
    assert "name another file with --out" in done.exception.line()


def test_a_manifest_that_is_wrong(here: Path) -> None:
    done = invoke("vae", "{source: file:///a b}")
    assert isinstance(done.exception, JobError)
    assert done.exception.code == "GTJ0107"


# --- of files: what reads them lies in rooms of its own -----------------------------------------------------------------------------------


@pytest.fixture
def folders(here: Path) -> Path:
    for module in ("forms.open", "places.open", "rows"):
        pytest.importorskip(f"trainjobs.data.{module}")
    for shade, (split, count) in enumerate((("train/cats", 20), ("train/dogs", 30), ("val/cats", 4), ("test/dogs", 3))):
        (here / "faces" / split).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (20 + number, 90), 60 * shade + number).save(here / "faces" / split / f"{number}.png")
    (here / "faces" / "train" / "dogs" / "again.png").write_bytes((here / "faces" / "train" / "cats" / "7.png").read_bytes())
    return here


def test_a_folder_that_is_divided(folders: Path) -> None:
    done = invoke("vae", "{source: file://./faces, images: {size: 16, channels: 1}}", "--no-picture")
    assert done.return_value == 0, (done.stderr, done.exception)
    assert f"spec.data.source is file://{folders}/faces" in done.stderr
    for words in ("split train, held out validation", "split test (3 files) left out", "51 to train on, 4 held out", "in 55 files"):
        assert words in done.stdout
    assert "1 of all 55 is a copy of others\n                  train/cats/7.png = train/dogs/again.png" in done.stdout
    assert "shorter side, in pixels: 20 to 49" in done.stdout
    assert "folder   -       text    cats" in done.stdout


def test_labels_and_a_share_held_out(folders: Path) -> None:
    done = invoke("vae", "{source: file://faces/train, labels: folder, images: {size: 16, channels: 1}}", "--no-picture", "-o", "json")
    (found,) = json.loads(done.stdout)["sources"]
    assert found["labels"] == {"dogs": 31, "cats": 20}
    assert found["samples"] + found["heldout"] == found["looked"] == 51
    assert found["heldout"] >= 1
    assert [(one["name"], one["role"]) for one in found["columns"]] == [("image", "image"), ("folder", "label")]


def test_another_source_is_held_out_and_a_mixture_is_described_part_by_part(folders: Path) -> None:
    data = "{sources: [{source: file://faces/train/cats}, {source: file://faces/train/dogs}], split: {validation: file://faces/test}}"
    done = invoke("vae", data, "--no-picture", "-o", "json")
    assert done.return_value == 0, (done.stderr, done.exception)
    found = json.loads(done.stdout)["sources"]
    assert [(one["samples"], one["heldout"]) for one in found] == [(20, 3), (31, 3)]
    assert f"held out file://{folders}/faces/test" in found[0]["words"]


def test_broken_samples_are_told_and_not_raised(folders: Path) -> None:
    (folders / "faces" / "train" / "cats" / "half.png").write_bytes(b"<html>")
    done = invoke("vae", "{source: file://faces/train/cats, images: {size: 16, channels: 1}}", "--no-picture")
    assert done.return_value == 0


def test_a_dataset_of_the_hub(folders: Path, serve: Serve) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    def shard(first: int, count: int) -> bytes:
        rows = [
            {"bytes": (folders / "faces" / "train" / "dogs" / f"{first + row}.png").read_bytes(), "path": "x.png"} for row in range(count)
        ]
        table = pa.table({"image": rows, "label": [row % 2 for row in range(count)], "caption": [f"dog {row}" for row in range(count)]})
        names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), file, row_group_size=4)
        return file.getvalue()

    files = {"data/train-00000-of-00002.parquet": shard(0, 9), "data/train-00001-of-00002.parquet": shard(10, 5)}
    server = serve({"org/dogs": {**files, "data/test-00000-of-00001.parquet": shard(20, 3), "README.md": b"# Dogs"}})
    done = invoke("vae", "{source: hf://datasets/org/dogs, images: {size: 16, channels: 1}}", "--no-picture", "-o", "json")
    assert done.return_value == 0, (done.stderr, done.exception)
    (found,) = json.loads(done.stdout)["sources"]
    assert found["source"] == f"hf://datasets/org/dogs@{server.state.repositories['org/dogs'].commit}"
    assert (found["samples"] + found["heldout"], found["files"], found["copies"], found["broken"]) == (14, 2, 0, [])
    assert [(one["name"], one["role"], one["kind"]) for one in found["columns"]] == [
        ("image", "image", "image"),
        ("label", "label", "integer"),
        ("caption", "caption", "text"),
    ]
    assert "split test (1 file) left out" in found["words"]
    assert found["labels"] == {"0": 8, "1": 6}


@pytest.mark.slow
def test_the_table_needs_no_torch(folders: Path) -> None:
    import subprocess
    import sys

    Path("job.yaml").write_text(JOB.format(family="vae: {}", data="{source: file://faces}"))
    code = "import sys; from trainjobs.cli.main import status; n = status(sys.argv[1:]); sys.exit(n or 9 * ('torch' in sys.modules))"
    arguments: list[Any] = [sys.executable, "-c", code, "data", "-f", "job.yaml", "--no-picture"]
    done = subprocess.run(arguments, env=os.environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
