"""Workers as forks: what becomes of a fork, of who asked for it, and of where it comes from."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainjobs.workers.ray_train import forks, launcher, lighter, unneeded

PYTHON = sys.executable
SETUP = "/ray/setup_worker.py"


def raylet(**changes: str) -> list[str]:
    flags = {
        "session_dir": "/tmp/session",
        "node_id": "ab12",
        "python_worker_command": f"{PYTHON} {SETUP} /ray/default_worker.py --webui=",
        "dashboard_agent_command": "python agent.py --grpc-port=1",
        "runtime_env_agent_command": "python main.py",
    } | changes
    return ["/ray/raylet", *(f"--{name}={value}" for name, value in flags.items() if value), "--head"]


def test_a_raylet_asks_for_forks_and_starts_no_agent() -> None:
    before = raylet()
    made = lighter.lighter(before, PYTHON, SETUP)
    assert len(made) == len(before)
    assert lighter.flag(made, "python_worker_command") == f"{PYTHON} {lighter.HERE / 'launcher.py'} /ray/default_worker.py --webui="
    for name in ("dashboard_agent_command", "runtime_env_agent_command"):
        assert lighter.flag(made, name) == f"{PYTHON} -S {lighter.HERE / 'idle.py'}"
    assert lighter.flag(made, "node_id") == "ab12"


@pytest.mark.parametrize("changes", [{"python_worker_command": "worker"}, {"dashboard_agent_command": ""}])
def test_a_raylet_of_another_kind_is_left_as_it_is(changes: dict[str, str]) -> None:
    with pytest.raises(lighter.Moved, match=next(iter(changes))):
        lighter.lighter(raylet(**changes), PYTHON, SETUP)


def test_a_flag_that_is_not_there_is_told() -> None:
    with pytest.raises(lighter.Moved, match="without --node_id"):
        lighter.flag(raylet(node_id=""), "node_id")


@pytest.mark.parametrize(
    ("more", "fork"),
    [
        (["--language=PYTHON"], True),
        (["--language=PYTHON", "--serialized-runtime-env-context={}"], True),
        (['--serialized-runtime-env-context={"env_vars": {"A": "b"}}'], False),
        (["--language=JAVA"], False),
    ],
)
def test_a_worker_that_needs_an_environment_of_its_own_is_no_fork(more: list[str], fork: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(launcher, "forked", lambda line, argv: became.append(("fork", argv)))
    monkeypatch.setattr(os, "execv", lambda path, argv: became.append(("own", argv)))
    launcher.main(["/ray/default_worker.py", "--webui=", *more])
    assert became[0] == (("fork", ["/ray/default_worker.py", "--webui="]) if fork else became[-1])
    assert became[-1] == ("own", [PYTHON, "/ray/setup_worker.py", "/ray/default_worker.py", "--webui=", *more])  # a fork that failed, too


def test_placeholders_stand_in_for_what_is_imported_meanwhile_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / "wants.py").write_text("from absent.inner import Thing\nimport absent as pd\ndef f(x: pd.DataFrame) -> Thing: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(unneeded, "NAMES", ("absent",))
    with unneeded.without_types():
        import wants  # type: ignore[import-not-found]
    assert wants.Thing.__module__ == "absent.inner"
    import absent  # type: ignore[import-not-found]

    assert absent.VALUE == 1
    assert not hasattr(absent, "inner")
    with unneeded.without_types():
        import absent as again

    assert again.VALUE == 1, "what is there is not taken away"


def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        assert "threads" in forks.unfit()
    finally:
        stop.set()
        other.join()


# --- with processes ----------------------------------------------------------------------------------------------------------------------

WORKER = """
import os, signal, sys
print("in", os.getcwd(), "as", sys.argv[1:], os.environ["MARK"], flush=True)
if sys.argv[1] == "wait":
    signal.pause()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that forks, and imports nothing before."""
    script = tmp_path / "server.py"
    script.write_text(
        "import sys\nfrom trainjobs.workers.ray_train import forks\n"
        "forks.MODULES, forks.THEIRS, forks.accelerator = (), 'json', lambda gpus: None\n"
        "print('up', flush=True)\nforks.main(sys.argv[1:])\n"
    )
    (tmp_path / "line").mkdir()
    command: list[str | Path] = [PYTHON, script, tmp_path / "line" / "line"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        while not (tmp_path / "line" / "line").exists():
            assert process.poll() is None
        yield process
        process.kill()


def asked(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    worker = tmp_path / "default_worker.py"
    worker.write_text(WORKER)
    (tmp_path / "setup_worker.py").write_text("import sys\nprint('own', sys.argv[1:], flush=True)\nsys.exit(9)\n")
    environment = os.environ | {launcher.LINE: str(tmp_path / "line" / "line"), "MARK": "here"}
    command: list[str | Path] = [PYTHON, launcher.__file__, worker, *arguments, "--language=PYTHON"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)


def fork_of(server: subprocess.Popen[str]) -> int:
    (child,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return int(child)


def gone(pid: int) -> None:

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 30)[0], "it lives on"
    finally:
        os.close(descriptor)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_a_fork_runs_as_its_launcher_would_and_ends_it_alike(server: subprocess.Popen[str], tmp_path: Path) -> None:
    for argument, status in (("0", 0), ("7", 7), ("kill", -signal.SIGKILL)):
        with asked(tmp_path, argument) as one:
            said, _ = one.communicate(timeout=60)
            assert said == f"in {tmp_path} as ['{argument}'] here\n"
            assert one.returncode == status


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
@pytest.mark.parametrize("whose", ["launcher", "server"])
def test_a_fork_dies_with_who_asked_for_it_and_with_where_it_comes_from(server: subprocess.Popen[str], tmp_path: Path, whose: str) -> None:
    with asked(tmp_path, "wait") as one:
        assert one.stdout is not None
        assert one.stdout.readline().startswith("in ")
        fork = fork_of(server)
        (one if whose == "launcher" else server).kill()
        gone(fork)
        one.wait(60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_without_anybody_to_fork_a_worker_starts_in_rays_own_way(tmp_path: Path) -> None:
    with asked(tmp_path, "0") as one:
        said, _ = one.communicate(timeout=60)
        assert said == f"own ['{tmp_path / 'default_worker.py'}', '0', '--language=PYTHON']\n"
        assert one.returncode == 9
