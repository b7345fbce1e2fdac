"""What the raylet of this machine's own cluster starts: forks instead of workers, and nothing instead of its agents.

The dashboard's agent and that of runtime environments are Python processes that import Ray, 1.5 s of a processor and 100 MB each, and
`ray.init` waits for the files in which they tell their ports. Nobody asks them anything here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainjobs.workers.ray_train.launcher import LINE, SETUP

SWITCH = "GENTRAIN_FORK"  # 0: no forks
HERE = Path(__file__).parent
PORTS = ("METRICS_AGENT", "METRICS_EXPORT", "DASHBOARD_AGENT_LISTEN", "RUNTIME_ENV_AGENT")


class Moved(Exception):
    """Ray is not as it was when this was written."""


@dataclass(frozen=True)
class Forks:
    """The process of forks.py: the socket at which it is asked."""

    line: str


@contextmanager
def forks(*, gpus: bool) -> Iterator[Forks | None]:
    """That process, which begins to import at once and ends with the block, or with this process. None where workers start in Ray's own
    way: where SWITCH says so, and where the kernel is not Linux."""
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0":
        yield None
        return
    folder = tempfile.mkdtemp(prefix="gentrain-forks-")  # for this user alone; that process removes it, too
    found = Forks(f"{folder}/line")
    command = [sys.executable, "-m", "trainjobs.workers.ray_train.forks", found.line, *(["--gpus"] if gpus else [])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield found
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def lighter(command: Sequence[str], python: str, setup: str) -> list[str]:
    """The command of a raylet whose workers are asked for as forks and whose agents are idle; Moved where it is no such command."""
    workers = subprocess.list2cmdline([python, setup])
    ours = {
        f"--python_worker_command={workers} ": f"--python_worker_command={subprocess.list2cmdline([python, str(HERE / 'launcher.py')])} ",
    }
    idle = subprocess.list2cmdline([python, "-S", str(HERE / "idle.py")])
    agents = [f"--{name}_command=" for name in ("dashboard_agent", "runtime_env_agent")]
    made = list[str]()
    for argument in command:
        known = next((key for key in ours if argument.startswith(key)), None)
        agent = next((key for key in agents if argument.startswith(key)), None)
        if known is not None:
            made.append(ours.pop(known) + argument.removeprefix(known))
        elif agent is not None:
            agents.remove(agent)
            made.append(agent + idle)
        else:
            made.append(argument)
    if ours or agents:
        raise Moved(f"its raylet is started without {', '.join([*ours, *agents])}")
    return made


def flag(command: Sequence[str], name: str) -> str:
    found = next((argument for argument in command if argument.startswith(f"--{name}=")), None)
    if found is None:
        raise Moved(f"its raylet is started without --{name}")
    return found.partition("=")[2]


@contextmanager
def forking(forks: Forks, environment: dict[str, str], say: Callable[[str], None]) -> Iterator[None]:
    """Within the block, a raylet that is started has its workers forked, with `environment` beside this process's."""
    import ray._raylet
    from ray._private import services

    theirs: Any = ray._raylet

    start = services.start_ray_process

    def started(command: list[str], process_type: str, *arguments: Any, **options: Any) -> Any:
        if process_type == "raylet":
            options["env_updates"] = {**(options.get("env_updates") or {}), **environment, LINE: forks.line}
            try:
                setup = str(Path(services.__file__).parent / "workers" / f"{SETUP}.py")
                command, folder, node = lighter(command, sys.executable, setup), flag(command, "session_dir"), flag(command, "node_id")
                for name in PORTS:
                    theirs.persist_port(folder, node, getattr(theirs, f"{name}_PORT_NAME"), -1)
            except (Moved, AttributeError) as moved:
                say(f"workers start in Ray's own way: {moved}")
        return start(command, process_type, *arguments, **options)

    services.start_ray_process = started
    try:
        yield
    finally:
        services.start_ray_process = start
