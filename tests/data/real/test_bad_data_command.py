"""What people give instead of data, as `gtj run` and `gtj data` meet it: the exit status that the documentation promises, and the message.

The driver of `gtj run` is called in this process. In place of a group of workers it opens the data and reads what the first steps would.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.data.places.hub_server import Repository
from tests.data.places.hubs import Serve
from tests.data.places.memory import MemoryBucket, Said
from tests.data.places.memory import place as placed
from tests.data.real import made
from tests.data.real.test_bad_data import CASES, LINE, PICTURE
from trainjobs.api.job import Spec
from trainjobs.cli import driver
from trainjobs.cli.main import status
from trainjobs.data import found, open_source
from trainjobs.noise import Noise
from trainjobs.run.folder import Run
from trainjobs.stores.bucket import Trouble
from trainjobs.workers import launch

ERRORS = Path(__file__).parents[3] / "docs" / "errors"
HEAD = "apiVersion: gentrain.dev/v1alpha1\nkind: GenerativeTrainingJob\nmetadata: {name: bad}\nspec: "
NETWORKS = {"vae": {}, "language": {"network": {"contextLength": 16}}}


class Here:
    """In place of driver.Process: the driver, called."""

    def __init__(self, run: Run, arguments: Sequence[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["launch", *arguments[3:]])
            patch.setattr(launch, "die_with_parent", lambda: None)
            patch.setattr(launch, "stoppable", lambda run: None)
            patch.setattr(launch, "here", self._train)
            with run.driver_log.open("a") as log, redirect_stderr(log), redirect_stdout(log):
                self._status = launch.main()

    def poll(self) -> int:
        return self._status

    @staticmethod
    def _train(settings: dict[str, Any]) -> None:
        run = Path(settings["run"])
        spec = Spec.model_validate(json.loads((run / "job.json").read_text())["spec"])
        source = open_source(spec, run / "cache", aside=run)
        positions = torch.arange(2 * spec.training.batch.global_)
        source.batch(positions, 0, Noise.of(0, 0, "train", positions))


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def gtj(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """gtj("run", "vae", source, ...): exit status, and what was printed, of a manifest with that data."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(driver, "Process", Here)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def call(verb: str, family: str, source: str, **data: Any) -> tuple[int, str]:
        spec = {family: NETWORKS[family], "data": {"source": source, **data}, "training": {"steps": 1, "batch": {"global": 8}}}
        Path("job.yaml").write_text(HEAD + json.dumps(spec))
        ended = status([verb, "-f", "job.yaml", *(["--no-ray"] if verb == "run" else [])])
        said = capsys.readouterr()
        return ended, f"{said.out}\n{said.err}"

    return call


def promised(code: str) -> int:
    """The exit status of a code, as its page has it."""
    told = re.search(r"`gtj` exits with status ([0-9]+)", (ERRORS / f"{code}.md").read_text())
    assert told is not None
    return int(told[1])


def folder(path: Path, files: Mapping[str, bytes]) -> str:
    path.mkdir()
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return f"file://{path}"


def seen(text: str) -> str:
    """Without the terminal's line breaks."""
    return " ".join(text.split())


BOMB = "a decompression bomb"  # seconds
VERBS = ("run", pytest.param("data", marks=pytest.mark.slow))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == BOMB)) for name in CASES])
def test_a_folder_that_is_refused(verb: str, name: str, gtj: Command, tmp_path: Path) -> None:
    family, files, code, words = CASES[name]
    more: dict[str, Any] = {"columns": {"caption": "title"}} if name == "no caption's column" else {}
    ended, said = gtj(verb, family, folder(tmp_path / "data", files), **more)
    assert (ended, code in said) == (promised(code), True), said
    for word in words:
        assert seen(word) in seen(said)
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*evil*"))


def answering(kind: str, why: str, verb: str = "") -> MemoryBucket:
    def fault(asked: str, path: str) -> None:
        if verb in ("", asked):
            raise Said(Trouble(kind, why))  # type: ignore[arg-type]

    return MemoryBucket({f"faces/{name}": data for name, data in made.folders(12).items()}, fault=fault)


# By name: bucket, its path, code, words.
BUCKETS: Mapping[str, tuple[MemoryBucket, str, str, tuple[str, ...]]] = {
    "missing bucket": (answering("no bucket", "NoSuchBucket"), "faces", "GTJ0113", ("the data's bucket does not exist", "NoSuchBucket")),
    "refused list": (
        answering("denied", "AccessDenied"),
        "faces",
        "GTJ0112",
        ("s3:ListBucket was refused to arn:aws:iam::1:role/trainer", "grant that right"),
    ),
    "refused get": (answering("denied", "AccessDenied", "get"), "faces", "GTJ0112", ("s3:GetObject was refused to arn:aws:iam::1:role",)),
    "empty prefix": (answering("denied", "", "never"), "none", "GTJ0113", ("the data does not exist", "s3://bucket/none")),
    "no answer": (answering("busy", "SlowDown"), "faces", "GTJ0219", ("the data does not answer", "SlowDown")),
    "no answer amid it": (answering("busy", "SlowDown", "get"), "faces", "GTJ0219", ("the data does not answer", "s3:GetObject")),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_that_is_refused(verb: str, name: str, gtj: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, path, code, words = BUCKETS[name]
    monkeypatch.setattr(found, "open_place", lambda uri, patience=None: placed(bucket, path))
    ended, said = gtj(verb, "vae", f"s3://bucket/{path}")
    assert (ended, code in said) == (promised(code), True), said
    for word in words:
        assert seen(word) in seen(said)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("hf://datasets/org/none", "GTJ0112", ("org/none", "HF_TOKEN")),
        ("hf://datasets/org/faces@gone", "GTJ0113", ("no such revision", "gone")),
        ("hf://datasets/org/gated", "GTJ0112", ("org/gated is gated", "HF_TOKEN")),
    ],
)
def test_a_dataset_of_the_hub_that_is_refused(
    verb: str, source: str, code: str, words: tuple[str, ...], gtj: Command, serve: Serve
) -> None:
    serve({"org/faces": made.parquets(8, 8), "org/gated": Repository(made.parquets(8, 8), gated=True)})
    ended, said = gtj(verb, "vae", source)
    assert (ended, code in said) == (promised(code), True), said
    for word in words:
        assert seen(word) in seen(said)


def test_a_disk_that_fills_while_shards_are_fetched(gtj: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket({f"faces/{name}": data for name, data in made.tars(12, 6).items()})

    def full(self: object, one: object, to: Path) -> None:
        raise OSError(28, "No space left on device", str(to))

    monkeypatch.setattr("trainjobs.data.places.bucket.BucketPlace.fetch", full)
    monkeypatch.setattr(found, "open_place", lambda uri, patience=None: placed(bucket, "faces"))
    for verb in ("run", "data"):
        ended, said = gtj(verb, "vae", "s3://bucket/faces")
        assert (ended, "GTJ0114" in said, "No space left on device" in said) == (promised("GTJ0114"), True, True), said


def test_a_link_that_leads_out(gtj: Command, tmp_path: Path) -> None:
    source = folder(tmp_path / "data", made.folders(6))
    (tmp_path / "secret.png").write_bytes(PICTURE)
    (tmp_path / "data" / "out.png").symlink_to(tmp_path / "secret.png")
    for verb in ("run", "data"):
        ended, said = gtj(verb, "vae", source)
        assert ended == promised("GTJ0113"), said
        assert f"it leads to {tmp_path}/secret.png" in seen(said)


def picture(mode: str, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((20, 30)).convert(mode).save(out, form, **options)
    return out.getvalue()


def odd_pictures() -> dict[str, bytes]:
    point, upright = io.BytesIO(), Image.Exif()
    Image.new("RGB", (1, 1), "red").save(point, "PNG")
    upright[0x0112] = 6  # lies on its side
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    return {
        "cmyk.jpg": picture("CMYK", "JPEG"),
        "deep.png": picture("I;16", "PNG") if "I;16" in Image.MODES else picture("I", "PNG"),
        "palette.png": picture("P", "PNG", transparency=0),
        "turned.jpg": picture("RGB", "JPEG", exif=upright),
        "point.png": point.getvalue(),
        "moving.gif": animated.getvalue(),
    }


# By name: family, files, words. It is odd, and it is data.
GOOD: Mapping[str, tuple[str, dict[str, bytes], str]] = {
    "a BOM": ("language", {"a.jsonl": b"\xef\xbb\xbf" + f"{LINE}\n{LINE}\n".encode()}, "2 samples"),
    "CRLF": ("language", {"a.jsonl": f"{LINE}\r\n{LINE}\r\n".encode()}, "2 samples"),
    "empty lines": ("language", {"a.jsonl": f"\n{LINE}\n\n \n{LINE}\n\n".encode()}, "2 samples"),
    "pictures of every kind": ("vae", odd_pictures(), "6 samples"),
    "less than a batch, and than two ranks": ("vae", {"a.png": made.picture(1), "b.png": made.picture(2)}, "2 samples"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_odd_and_can_be_read_is(name: str, gtj: Command, tmp_path: Path) -> None:
    family, files, words = GOOD[name]
    source = folder(tmp_path / "data", files)
    data = {"images": {"size": 8}} if family == "vae" else {}
    ended, said = gtj("data", family, source, **data)
    assert (ended, words in said) == (0, True), said
    ended, said = gtj("run", family, source, **data)
    assert (ended, "GTJ0213 the workers ended without a result" in seen(said)) == (promised("GTJ0213"), True), "what was read was no matter"
