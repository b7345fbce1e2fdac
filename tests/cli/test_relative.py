"""Relative paths of data are resolved against the manifest, and mean the same from wherever the run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from trainjobs.api.errors import JobError
from trainjobs.cli.main import gtj
from trainjobs.cli.manifest import load, load_job
from trainjobs.cli.positions import documents
from trainjobs.cli.relative import absolute, resolved, rewritten
from trainjobs.cli.run import settled

JOB = """\
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {{name: faces}}
spec:
  vae: {{}}
  data: {data}
  training: {{steps: 1}}
"""


def job(folder: Path, data: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(JOB.format(data=data))
    return str(folder / "job.yaml")


def invoke(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(gtj, arguments, standalone_mode=False, **more)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file://./faces", "/home/me/faces"),
        ("file://faces", "/home/me/faces"),
        ("file://faces/a/../b/", "/home/me/faces/b"),
        ("file://../x", "/home/x"),
        ("file://.", "/home/me"),
        ("file://my%20faces/caf%C3%A9", "/home/me/my%20faces/café"),
        ("file://100%25", "/home/me/100%25"),
    ],
)
def test_paths_are_resolved(uri: str, path: str) -> None:
    assert resolved(uri, Path("/home/me")) == f"file://{path}"


def test_two_dots_behind_a_link_are_what_the_system_makes_of_them(tmp_path: Path) -> None:
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "a")
    uri = resolved("file://link/../b", tmp_path)
    assert os.path.samefile(uri.removeprefix("file://"), tmp_path / "link" / ".." / "b")
    assert resolved("file://link", tmp_path) == f"file://{tmp_path}/link", "a link itself stays"


@pytest.mark.parametrize(
    ("data", "at"),
    [
        ("{source: file://./a}", ["source"]),
        ("{sources: [{source: file://a}, {source: s3://b/c}]}", ["sources", 0, "source"]),
        ("{source: s3://b/c, split: {validation: file://./a}}", ["split", "validation"]),
    ],
)
def test_every_place_where_data_is_named(tmp_path: Path, data: str, at: list[str | int]) -> None:
    manifest = load_job(job(tmp_path, data), here=True)
    assert manifest.job is not None
    value = manifest.job.model_dump(by_alias=True)["spec"]["data"]
    copied = yaml.safe_load(manifest.text)["spec"]["data"]
    for key in at:
        value, copied = value[key], copied[key]
    assert value == copied == f"file://{tmp_path}/a"
    assert manifest.resolved == ((("spec", "data", *at), f"file://{tmp_path}/a"),)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a", "file:///a", "builtin:digits", "file://~/a", "file://$HOME/a", "file://localhost/a", "file://u@h/a", "faces"]
)
def test_all_else_stays(tmp_path: Path, uri: str) -> None:
    manifest = load(job(tmp_path, f"{{source: '{uri}'}}"), here=True).manifests[0]
    assert manifest.text == (tmp_path / "job.yaml").read_bytes()
    assert not manifest.resolved


@pytest.mark.parametrize(
    "data", ["{source: [1]}", "3", "{sources: file://a}", "{sources: [3]}", "{split: 3}", "{source: null, split: {validation: 3}}"]
)
def test_a_manifest_of_any_shape(tmp_path: Path, data: str) -> None:
    assert load(job(tmp_path, data), here=True).manifests[0].found


@pytest.mark.parametrize(
    ("source", "message"), [("file://./my faces", "file://./my%20faces"), ("file://./a?b", "file://./a%3Fb"), ("file://~/a", "$HOME/a")]
)
def test_what_is_unusable_otherwise_is_refused_as_it_was_typed(tmp_path: Path, source: str, message: str) -> None:
    done = invoke("validate", "-f", job(tmp_path, f"{{source: '{source}'}}"))
    assert done.return_value == 3
    assert message in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "a: {x: file://./d, spec: 1}\nspec: {data: {source: file://./d}}  # file://./d\n",
        "spec:\n  data:\n    source: 'file://./d'\r\n    sources: [{source: \"file://./e f\"}, {source: file://é/d, weight: 2}]\n",
        "spec:\n  data:\n    split: {validation: file://./d}\n---\nkind: Secret\n",
    ],
)
def test_the_copy_of_the_manifest_means_the_same_elsewhere(text: str) -> None:
    folder = Path("/home/me/[x] y")
    document = next(documents(text))
    again = list(documents(rewritten(text.encode(), document, folder).decode()))
    assert again[0].data == absolute(document.data, folder)[0] != document.data
    assert [one.data for one in again[1:]] == [one.data for one in documents(text)][1:]


def test_an_alias_is_left_as_it_is() -> None:
    text = b"a: &here file://./d\nspec: {data: {source: *here}}\n"
    assert rewritten(text, next(documents(text.decode())), Path("/x")) == text


def test_validate_says_what_a_path_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = job(tmp_path / "jobs", "{source: file://../faces}")
    monkeypatch.chdir("/")
    done = invoke("validate", "-f", source)
    assert done.return_value == 0
    assert f"spec.data.source is file://{tmp_path}/faces here; a cluster refuses a relative path" in done.stderr
    assert f"vae on file://{tmp_path}/faces" in done.stdout


def test_standard_input_is_resolved_against_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("validate", "-f", "-", input=JOB.format(data="{source: file://faces}"))
    assert f"vae on file://{tmp_path}/faces" in done.stdout


def test_set_is_resolved_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    manifest = load_job(job(tmp_path, "{source: builtin:digits}"), ["data.source=file://./faces"], here=True)
    assert manifest.job is not None
    assert manifest.job.spec.data.source == f"file://{tmp_path}/faces"
    assert b"builtin:digits" in manifest.text


def test_what_set_resolved_is_in_the_command_that_goes_on_with_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ("training.steps=2", "data={source: file://./a, split: {validation: file://./b}}")
    manifest = load_job(job(tmp_path, "{source: builtin:digits}"), changes, here=True)
    added = [f"spec.data.source=file://{tmp_path}/a", f"spec.data.split.validation=file://{tmp_path}/b"]
    assert settled(changes, manifest) == (*changes, *added)
    again = load_job(job(tmp_path / "run", "{source: builtin:digits}"), settled(changes, manifest), here=True)
    assert again.job == manifest.job
    mixed = load_job(job(tmp_path, "{sources: [{source: s3://b/c}, {source: s3://b/d}]}"), ["data.sources[1].source=file://e"], here=True)
    assert settled((), mixed) == (f"spec.data.sources[1].source=file://{tmp_path}/e",)


def test_a_cluster_refuses_a_relative_path(tmp_path: Path) -> None:
    for data in (
        "{source: file://./faces}",
        "{sources: [{source: file://faces}]}",
        "{source: s3://b/c, split: {validation: file://faces}}",
    ):
        with pytest.raises(
            JobError, match=r"relative path.*copy the data to a bucket.*or mount it \(spec.pod.volumes\).*file:///faces"
        ) as error:
            load_job(job(tmp_path, data))
        assert error.value.code == "GTJ0107"


@pytest.mark.slow
def test_a_run_goes_on_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    (tmp_path / "jobs" / "faces").mkdir(parents=True)
    for number in range(8):
        Image.new("L", (8, 8), 30 * number).save(tmp_path / "jobs" / "faces" / f"{number}.png")
    source = job(tmp_path / "jobs", "{source: file://./faces, images: {size: 8, channels: 1}}")
    options = ["--no-ray", "--run-dir", str(tmp_path / "run"), "-o", "json"]
    sets = ["--set", "compute.gpusPerWorker=0", "--set", "training.batch.global=4"]
    monkeypatch.chdir(tmp_path / "jobs")
    first = invoke("run", "-f", "job.yaml", "--steps", "2", *options, *sets)
    assert first.return_value == 0, first.stderr
    assert f"spec.data.source is file://{tmp_path}/jobs/faces" in first.stderr
    assert f"file://{tmp_path}/jobs/faces" in (tmp_path / "run" / "job.yaml").read_text()
    monkeypatch.chdir("/")
    for file in (source, str(tmp_path / "run" / "job.yaml")):
        again = invoke("run", "-f", file, "--steps", "4", *options, *sets)
        assert again.return_value == 0, again.stderr
        assert json.loads(again.stdout)["step"] == 4
    monkeypatch.chdir(tmp_path)
    text = Path(source).read_text()
    piped = invoke("run", "-f", "-", "--steps", "4", *options, *sets, input=text)
    assert isinstance(piped.exception, JobError)
    assert piped.exception.code == "GTJ0115", "from here it is another folder"
    assert f'is "file://{tmp_path}/faces"' in piped.exception.why
