"""The cluster verbs without a cluster: what is refused before or instead of talking to one, and how long waiting goes on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from gentrain_operator.kube.errors import ApiError
from tests.cli.cluster_jobs import failed, job, running, succeeded
from trainjobs.api.errors import JobError
from trainjobs.cli.cluster.refusal import refusal
from trainjobs.cli.cluster.server import Cluster, connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.wait import PATIENCE, POLL, REFUSALS, until
from trainjobs.cli.main import VERBS, status
from trainjobs.cli.screen import Plain

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = str(ROOT / "manifests" / "samples" / "vae-digits.yaml")
CLUSTER_VERBS = ("submit", "wait", "stop", "resume", "rm", "explain")

Said = Callable[..., tuple[int, str]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs gtj in an empty folder, home included: (exit status, everything it printed)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, program: str = "gtj") -> tuple[int, str]:
        code = status(list(arguments), program)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def kubeconfig(path: Path, server: str = "http://127.0.0.1:1", **more: Any) -> str:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "eve", "user": {"token": "t"}}],
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "eve", "namespace": "team-a"}}],
        "current-context": "prod",
        **more,
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


# --- which cluster


def test_without_a_kubeconfig(said: Said) -> None:
    for arguments in (("ls", "--cluster"), ("status", "x", "-n", "y"), ("logs", "x", "--context", "z"), ("wait", "x"), ("rm", "x")):
        code, text = said(*arguments)
        assert code == 7
        assert text.startswith("GTJ0302 there is no kubeconfig\n  where: ~/.kube/config")


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ("{", (), "cannot be used"),
        ("", (), "cannot be used"),
        ("just text", (), "cannot be used"),
        ({"contexts": None}, (), 'no context "prod"'),
        ({"current-context": ""}, (), "no context is current"),
        ({"clusters": []}, (), "cannot be used"),
        ({}, ("--context", "prd"), 'did you mean "prod"?'),
        ({"current-context": "gone"}, (), "there is prod"),
    ],
)
def test_kubeconfigs_that_cannot_be_used(said: Said, tmp_path: Path, content: Any, arguments: tuple[str, ...], words: str) -> None:
    path = tmp_path / "config"
    if isinstance(content, str):
        path.write_text(content)
    else:
        kubeconfig(path, **content)
    code, text = said("ls", "--kubeconfig", str(path), *arguments)
    assert code == 7
    assert text.startswith("GTJ0302 ")
    assert words in text
    assert str(path) in text


def test_nobody_listens(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path / "config"))
    code, text = said("wait", "faces")
    assert code == 7
    assert text.splitlines() == [
        "GTJ0302 cannot read job faces: the cluster does not answer",
        "  where: context prod, http://127.0.0.1:1, as eve",
        "  why:   Connection refused",
        "  how:   nothing listens there: is the cluster running, is a tunnel or VPN down?",
    ]


def test_a_server_that_never_answers_is_given_up(said: Said, tmp_path: Path, silent: str) -> None:
    cluster = connect(Target(kubeconfig=kubeconfig(tmp_path / "config", silent)), timeout=(0.2, 0.2))
    with pytest.raises(JobError, match="no answer in time"):
        cluster.jobs()


def test_several_kubeconfigs_in_one_variable(said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = kubeconfig(tmp_path / "other", contexts=[{"name": "dev", "context": {"cluster": "c", "user": "eve"}}])
    monkeypatch.setenv("KUBECONFIG", f"{kubeconfig(tmp_path / 'config')}:{other}:{tmp_path / 'missing'}")
    assert connect(Target(context="dev")).namespace == "default"
    assert connect(Target(context="prod")).namespace == "team-a"
    assert connect(Target(namespace="mine", context="prod")).namespace == "mine"


def test_kubectl_gtj_means_the_cluster(said: Said) -> None:
    assert said("ls")[0] == 0
    assert said("ls", program="kubectl gtj")[0] == 7
    assert "GTJ0118 no run" in said("status", "x")[1]
    assert "add --cluster" in said("status", "x")[1]
    assert "GTJ0302" in said("status", "x", program="kubectl gtj")[1]
    assert "Usage: kubectl gtj wait" in said("wait", "--help", program="kubectl gtj")[1]


# --- before anything is asked


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("submit",), 2, "--file"),
        (("submit", "-f", "none.yaml"), 7, "GTJ0118"),
        (("submit", "-f", SAMPLE, "--set", "training.stepz=1"), 3, "GTJ0101"),
        (("submit", "-f", SAMPLE, "--timeout", "5m"), 2, "--timeout goes with --wait"),
        (("submit", "-f", SAMPLE, "--wait", "--dry-run"), 2, "nothing to wait for"),
        (("submit", "-f", SAMPLE, "--wait", "--timeout", "soon"), 2, '"soon" is not a period'),
        (("wait", "x", "--for", "Happy"), 2, "Happy"),
        (("wait", "x", "--timeout", "5"), 2, '"5" is not a period'),
        (("stop", "x", "--timeout", "5m"), 2, "--timeout goes with --wait"),
        (("rm",), 2, "NAME"),
        (("explain",), 2, "NAME|CODE"),
        (("explain", "GTJ0999"), 2, "there is no code GTJ0999"),
    ],
)
def test_misuse(said: Said, arguments: tuple[str, ...], code: int, words: str) -> None:
    result, text = said(*arguments)
    assert (result, words in text) == (code, True), text


def test_a_namespace_said_twice(said: Said, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(Path(SAMPLE).read_text().replace("{name: vae-digits}", "{name: vae-digits, namespace: theirs}"))
    code, text = said("submit", "-f", "job.yaml", "-n", "mine", "--kubeconfig", kubeconfig(tmp_path / "config"))
    assert code == 3
    assert "the manifest is for namespace theirs, and -n says mine" in text


def test_notes_on_a_manifest_are_told_before_it_is_sent(said: Said, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(Path(SAMPLE).read_text().replace("{name: vae-digits}", "{name: vae-digits, namespace: theirs}"))
    there = ("submit", "-f", "job.yaml", "-n", "mine", "--kubeconfig", kubeconfig(tmp_path / "config"))
    note = "--set training.schedule.warmupSteps=9000: GTJ0123: note: the warm-up of 9000 steps"
    assert said(*there, "--set", "training.schedule.warmupSteps=9000")[1].startswith(note)
    assert "note" not in said(*there)[1]


def test_a_code_is_explained_without_a_cluster(said: Said) -> None:
    code, text = said("explain", "gtj0117")
    assert code == 0
    assert text.startswith("GTJ0117: run folder in use by another process\n")
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(said("explain", "GTJ0206", "-o", "json")[1])["exitCode"] == 5


def test_only_talking_to_a_cluster_imports_the_client() -> None:
    code = (
        "import sys; from trainjobs.cli.main import status\n"
        "assert status(['explain', 'GTJ0117']) == status(['ls']) == 0 and status(['logs', 'x']) == 7\n"
        f"for verb in {CLUSTER_VERBS}: assert status([verb, '--help']) == 0\n"
        "print({name.split('.')[0] for name in sys.modules} & {'kubernetes', 'torch', 'rich', 'numpy', 'urllib3'})"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set()"


def test_completion_knows_the_verbs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("_GTJ_COMPLETE", "bash_complete"), ("COMP_WORDS", "gtj "), ("COMP_CWORD", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        status([])
    offered = {line.partition(",")[2] for line in capsys.readouterr().out.splitlines()}
    assert set(CLUSTER_VERBS) <= offered == set(VERBS)


def test_completion_of_names_is_silent_without_a_cluster(
    said: Said, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("_GTJ_COMPLETE", "bash_complete"), ("COMP_WORDS", "gtj wait "), ("COMP_CWORD", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        status([])
    assert capsys.readouterr().out.strip() == ""


# --- waiting


class Told:
    """A cluster that answers with one thing after the other: a job, or a refusal. Every question takes POLL on its clock."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.now, self.where = list(answers), 0.0, "context c"

    def job(self, name: str) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ApiError):
            raise refusal(answer, f"read job {name}", self.where) from answer
        return answer

    def command(self, *words: str) -> str:
        return " ".join(("gtj", *words))

    def wait(self, first: Any, limit: float | None = None) -> tuple[Any, list[str]]:
        class Lines(list[str]):
            def write(self, text: str) -> None:
                self.append(text)

            def flush(self) -> None:
                pass

        lines = Lines()

        def sleep(length: float) -> None:
            self.now += length

        last = until(cast(Cluster, self), first, "Finished", limit, Plain("faces", cast(Any, lines)), lambda: self.now, sleep)
        return last, [line for line in lines if line.strip()]


def test_waiting_says_one_line_in_ten_seconds() -> None:
    told = Told(*[job("Provisioning", message="0 of 2 workers are ready")] * 7, *[running()] * 7, succeeded())
    last, lines = told.wait(job())
    assert last == succeeded()
    assert lines == [
        "faces: provisioning: 0 of 2 workers are ready (10s)",
        "faces: 25% 250/1000, loss D 0.6123 G nan, 812.4 samples/s, ETA 1h12m",
    ]


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    away = ApiError(0, "Unreachable", "Connection refused")
    last, lines = Told(running(), away, ApiError(503, "x", "y"), away, failed()).wait(running())
    assert last == failed()
    assert [line for line in lines if "trying" in line] == [
        "cannot read job faces: the cluster does not answer: Connection refused; trying for 5m"
    ]


def test_a_server_that_stays_away_is_given_up() -> None:
    told = Told(ApiError(0, "Unreachable", "Connection refused"))
    with pytest.raises(JobError, match="GTJ0302"):
        told.wait(running())
    assert PATIENCE < told.now <= PATIENCE + 2 * POLL


@pytest.mark.parametrize(
    ("answer", "code"), [(ApiError(401, "Unauthorized", "x"), "GTJ0303"), (ApiError(403, "Forbidden", "x"), "GTJ0303")]
)
def test_a_server_that_goes_on_saying_no_is_believed(answer: ApiError, code: str) -> None:
    told = Told(answer)
    with pytest.raises(JobError, match=code):
        told.wait(running())
    assert REFUSALS < told.now <= REFUSALS + 2 * POLL


def test_another_job_of_the_same_name_is_not_waited_for() -> None:
    other = {**running(), "metadata": {**running()["metadata"], "uid": "u-2"}}
    with pytest.raises(JobError, match="deleted while it was waited for") as caught:
        Told(other).wait(running())
    assert caught.value.exit_code == 7


def test_the_time_is_up() -> None:
    told = Told(job("Provisioning", message="0 of 2 workers are ready"))
    with pytest.raises(JobError, match="GTJ0215 faces has not become Finished within 5s") as caught:
        told.wait(job(), 5.0)
    assert caught.value.exit_code == 6
    assert told.now == 5.0
