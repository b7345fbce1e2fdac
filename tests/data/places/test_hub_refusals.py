"""What goes wrong with datasets of the hub: code, and words that say what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.places.hub_server import Repository
from tests.data.places.hubs import Clock, Serve
from trainjobs.api.errors import JobError
from trainjobs.data.places.hub import open_hub

FILES = {"README.md": b"# Faces", "train.jsonl": b'{"text": "a"}\n' * 100}
CLOSED = {
    "org/open": FILES,
    "org/gated": Repository(FILES, gated=True, readers=("jane",)),
    "org/private": Repository(FILES, private=True, readers=("jane",)),
}


def refused(uri: str) -> JobError:
    def read() -> None:
        place = open_hub(uri)
        place.read(place.listed().objects[0], 0, 10)

    with pytest.raises(JobError) as error:
        read()
    return error.value


@pytest.mark.parametrize(
    ("token", "uri", "code", "words"),
    [
        ("jane", "hf://datasets/org/nothing", "GTJ0113", ["the hub has no dataset org/nothing", "asked as jane", "mend the name"]),
        ("", "hf://datasets/org/nothing", "GTJ0112", ["no dataset org/nothing without a token", "or there is none of that name"]),
        ("", "hf://datasets/org/private", "GTJ0112", ["org/private without a token", "it is private, or", "HF_TOKEN", "spec.pod.env"]),
        ("joe", "hf://datasets/org/private", "GTJ0113", ["the hub has no dataset org/private", "asked as joe", "token that may read it"]),
        (
            "",
            "hf://datasets/org/gated",
            "GTJ0112",
            ["org/gated is gated", "nobody without a token has", "/datasets/org/gated", "Secret"],
        ),
        ("joe", "hf://datasets/org/gated", "GTJ0112", ["org/gated is gated", "joe has none", "ask for access on http"]),
        ("stale", "hf://datasets/org/open", "GTJ0112", ["refused to read org/open", "Invalid credentials", "make a token"]),
        ("", "hf://datasets/org/open@v9", "GTJ0113", ["no such revision", "/datasets/org/open/commits", "Invalid rev id: v9"]),
        ("", f"hf://datasets/org/open@{'0' * 40}", "GTJ0113", ["no such revision", "Invalid rev id"]),
        ("", "hf://datasets/org/open@v9/en", "GTJ0113", ["the revision stands at the end"]),
    ],
)
def test_refusals(serve: Serve, monkeypatch: pytest.MonkeyPatch, token: str, uri: str, code: str, words: list[str]) -> None:
    serve(CLOSED)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    error = refused(uri)
    assert error.code == code
    assert error.exit_code == 7
    assert error.where.startswith("GET http://127.0.0.1:")
    for word in words:
        assert word in error.line()
    assert not token or token == "jane" or f"Bearer {token}" not in error.line()


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(JobError, match=r"a package is not installed .*pip install huggingface_hub") as error:
        open_hub("hf://datasets/org/name")
    assert error.value.code == "GTJ0107"


def test_a_gated_dataset_without_a_readme_is_refused_by_its_first_file(serve: Serve) -> None:
    serve({"org/gated": Repository({"train.jsonl": b"{}"}, gated=True)})
    assert refused("hf://datasets/org/gated").code == "GTJ0112"


def test_a_hub_that_does_not_answer_is_waited_for_and_then_named(serve: Serve, clock: Clock) -> None:
    server = serve({"org/open": FILES})
    server.state.faults = [("/api/", "503")] * 1000
    with pytest.raises(JobError, match=r"the hub does not answer .*asked \d+ times in \d+ s.*HTTP 503.*HF_ENDPOINT") as error:
        open_hub("hf://datasets/org/open", patience=clock.patience(20))
    assert error.value.code == "GTJ0219"
    assert 10 < clock.time <= 20


def test_a_hub_that_is_not_there_is_named(serve: Serve, clock: Clock) -> None:
    server = serve({})
    server.shutdown()
    server.server_close()
    with pytest.raises(JobError, match=r"127\.0\.0\.1.*Connection refused") as error:
        open_hub("hf://datasets/org/open", patience=clock.patience(20))
    assert error.value.code == "GTJ0219"


def test_a_hub_that_stays_silent_is_asked_again(serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.data.places.hub_requests.ANSWER", 0.2)
    server = serve({"org/open": FILES})
    server.state.faults = [("/tree/", "silent")]
    assert len(open_hub("hf://datasets/org/open", patience=clock.patience()).listed().objects) == 1


def test_a_hub_that_says_later_is_asked_then(serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.data.places.hub_requests._told", lambda error: 15.0)
    server = serve({"org/open": FILES})
    server.state.faults = [("/api/", "429")]
    assert open_hub("hf://datasets/org/open", patience=clock.patience(20)).listed().objects
    assert clock.pauses == [15.0]
    server.state.faults = [("/api/", "429")] * 2
    with pytest.raises(JobError, match="HTTP 429"):
        open_hub("hf://datasets/org/open", patience=clock.patience(20))


def test_something_else_that_answers_is_named(serve: Serve) -> None:
    server = serve({"org/open": FILES})
    server.state.faults = [("/api/", "html")]
    with pytest.raises(JobError, match=r"what answers is no hub .*hotel's network.*HF_ENDPOINT") as error:
        open_hub("hf://datasets/org/open")
    assert error.value.code == "GTJ0219"


def test_a_disk_that_is_full_is_no_matter_of_the_hub(serve: Serve) -> None:
    serve({"org/open": FILES})
    place = open_hub("hf://datasets/org/open")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space left"):
        place.fetch(place.listed().objects[0], Path("/dev/full"))


def test_offline_without_a_snapshot(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    server = serve({"org/open": FILES})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused("hf://datasets/org/open@v1")
    assert error.code == "GTJ0113"
    assert "org/open is not on this machine, and HF_HUB_OFFLINE forbids" in error.line()
    assert "hf download --repo-type dataset org/open --revision v1" in error.how
    assert error.where == str(tmp_path / "hub" / "datasets--org--open")
    assert not server.state.asked


def test_offline_a_snapshot_is_read_and_is_the_same_data(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    server = serve({"org/open": {**FILES, "sub/big.jsonl": b"{}\n" * 1000}})
    online = open_hub("hf://datasets/org/open")
    folder = tmp_path / "hub" / "datasets--org--open"
    snapshot = folder / "snapshots" / online.dataset.revision
    for name, data in server.state.repositories["org/open"].files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "blobs").mkdir(exist_ok=True)
        tag = next((file.tag for file in online.listed().objects if file.name == name), "0" * 40)
        (folder / "blobs" / tag).write_bytes(data)
        (snapshot / name).symlink_to(folder / "blobs" / tag)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(online.dataset.revision)
    before = online.listed().objects
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.state.asked.clear()
    offline = open_hub("hf://datasets/org/open")
    assert offline.uri == online.uri
    assert [(file.name, file.size, file.tag) for file in offline.listed().objects] == [(file.name, file.size, file.tag) for file in before]
    big = offline.listed().objects[0]
    assert big.path == snapshot / "sub" / "big.jsonl"
    assert offline.read(big, 2, 8) == b"\n{}\n{}"
    offline.fetch(big, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"{}\n" * 1000
    assert not server.state.asked


@pytest.mark.slow
def test_the_environment_is_honoured(serve: Serve, tmp_path: Path) -> None:
    """HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE as huggingface_hub reads them: by a process of its own, which downloads too."""
    server = serve({"org/private": Repository(FILES, private=True, readers=("jane",))})
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "jane"}
    script = "from trainjobs.data.places.hub import open_hub; p = open_hub('hf://datasets/org/private'); "
    script += "print(p.read(p.listed().objects[0], 0, 5))"
    download = "from huggingface_hub import snapshot_download as s; s('org/private', repo_type='dataset')"

    def run(code: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], env={**environment, **extra}, capture_output=True, text=True, timeout=120)

    assert run(script).stdout == "b'{\"tex'\n"
    assert "GTJ0112" in run(script, HF_TOKEN="").stderr
    assert "GTJ0113" in run(script, HF_HUB_OFFLINE="1").stderr
    assert run(download).returncode == 0
    server.state.asked.clear()
    assert run(script, HF_HUB_OFFLINE="1").stdout == "b'{\"tex'\n"
    assert not server.state.asked
