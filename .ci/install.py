"""Make .venv: everything pinned by constraints.txt, this repository in place, bytecode compiled. Run by `make`, standard library only.

Nothing happens when the environment already matches (a stamp holds a digest of all that decides what is installed). pip installs uv,
uv installs the rest, because it links from its cache where pip copies gigabytes. uv does not read pip's configuration, so what pip was
told about indexes, links and certificates is handed on in uv's own variables; credentials stay in the environment, off command lines.

    GENTRAIN_TORCH   another build of torch than the index's: a wheel's path, or a requirement such as torch==2.13.0+cpu
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "stamp"
PYTHON = VENV / "bin" / "python"
EXTRAS = ("train", "report", "operator", "cloud", "dev")
GIB = 1 << 30

# name: (what it is, GB to download, GB on disk), measured with all extras; the figures are for the whole environment.
BUILDS = {
    "cuda": ("torch's CUDA build (works without a GPU, too)", 3.0, 6.0),
    "cpu": ("a CPU build of torch", 0.5, 2.0),
}
TORCH_FAMILY = ("torch", "triton", "nvidia-", "cuda-")


def main() -> int:
    if not (3, 11) <= sys.version_info < (3, 14):
        return fail(f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}. Name another: make PYTHON=/path/to/python3")
    torch = os.environ.get("GENTRAIN_TORCH", "")
    digest = fingerprint(torch)
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == digest:
        return 0
    STAMP.unlink(missing_ok=True)
    started = time.monotonic()
    pins = constraints(torch)
    try:
        make_venv(pins["uv"])
        env = dict(os.environ) | uv_environment(pip_configuration(), os.environ)
        # Of every step, torch's above all: else each process compiles 1,500 of its files again where Python may write none itself.
        env["UV_COMPILE_BYTECODE"] = "1"
        pinned = VENV / "constraints.txt"
        pinned.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
        wanted = [torch] if torch else [f"torch=={pins['torch']}"]
        announce(uv("install", "--dry-run", *wanted, env=env, capture=True))
        build = ["setuptools", "wheel", "ninja", "packaging", "psutil"]
        uv("install", *wanted, *([] if torch else ["--constraint", str(pinned)]), env=env)
        uv("install", "--constraint", str(pinned), *build, env=env)
        # DeepSpeed's setup looks at the torch that is installed; its operations are compiled at first use, if ever, not here.
        env["DS_BUILD_OPS"] = "0"
        project = f"{ROOT}[{','.join(EXTRAS)}]"
        uv("install", "--no-build-isolation", "--constraint", str(pinned), "--editable", project, env=env)
    except subprocess.CalledProcessError as error:
        return fail(f"installation stopped (exit {error.returncode}). What is there is kept: run the same command again to go on.")
    STAMP.write_text(digest)
    print(f"Installed in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def fail(message: str) -> int:
    print(f"make: {message}", file=sys.stderr)
    return 1


def fingerprint(torch: str) -> str:
    """Digest of what decides the environment's contents; the checks' settings in pyproject.toml are none of it."""
    import tomllib  # not at the top: an older Python shall hear from main() which ones will do

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [sys.version, str(ROOT), torch, (ROOT / "constraints.txt").read_text(), Path(__file__).read_text()]
    parts += [repr(project["build-system"]), repr(project["project"]), repr(project["tool"]["setuptools"])]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def constraints(torch: str) -> dict[str, str]:
    """Pinned versions by name; without torch's own family when the user brings torch."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    return {name: pin for name, pin in pins.items() if not (torch and name.startswith(TORCH_FAMILY))}


def make_venv(uv_version: str) -> None:
    print(f"Setting up {VENV} with Python {sys.version.split()[0]}. First uv {uv_version} (25 MB).", flush=True)
    if not usable(PYTHON):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={uv_version}"], check=True)


def usable(python: Path) -> bool:
    """Whether there is an environment of this very Python: it starts, is as old as we are and has pip."""
    probe = "import sys, pip; print(sys.version)"
    try:
        return subprocess.run([str(python), "-c", probe], capture_output=True, text=True, check=True).stdout.strip() == sys.version
    except (OSError, subprocess.CalledProcessError):
        return False


def pip_configuration() -> dict[str, str]:
    """What pip would use, from its files and its environment: {"index-url": ..., "find-links": ..., ...}. The environment wins."""
    command = [str(PYTHON), "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, str] = {}
    for line in sorted(listed, key=lambda line: (line.startswith(":env:"), line.startswith("install."))):
        key, _, value = line.partition("=")
        found[key.rsplit(".", 1)[-1]] = str(ast.literal_eval(value))
    return found


def uv_environment(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """uv's variables that say what pip's configuration says. What the user set for uv stays as it is."""
    links = " ".join([pip.get("find-links", ""), environ.get("UV_FIND_LINKS", "").replace(",", " ")]).split()
    links = [link for link in links if "://" in link or Path(link).exists()]  # pip passes over a missing folder, uv stops at it
    told = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "SSL_CERT_FILE": pip.get("cert", ""),
        "ALL_PROXY": pip.get("proxy", ""),
        "UV_SYSTEM_CERTS": "1",  # as pip does since 24.2
        "UV_HTTP_TIMEOUT": "300",
        # pip takes the best version from all indexes; uv's own default stops at the first index that knows the name.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    answer = {name: value for name, value in told.items() if value and name not in environ}
    if links:
        answer["UV_FIND_LINKS"] = ",".join(dict.fromkeys(links))
    return answer


def uv(verb: str, *arguments: str, env: Mapping[str, str], capture: bool = False) -> str:
    """Run `uv pip <verb>` on the environment; returns what it said when `capture`."""
    command = [str(VENV / "bin" / "uv"), "pip", verb, "--python", str(PYTHON), *arguments]
    done = subprocess.run(command, env=env, check=False, text=True, stderr=subprocess.PIPE if capture else None)
    if done.returncode:
        print(done.stderr or "", file=sys.stderr, end="")
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stderr or ""


def announce(dry_run: str) -> None:
    """Say what is about to be downloaded, from uv's own list of what it would install for torch."""
    if "Would make no changes" in dry_run:
        print("torch is here already; now what has changed.", flush=True)
        return
    text, download, disk = BUILDS["cuda" if "nvidia-" in dry_run else "cpu"]
    print(f"Next {text} with Ray, DeepSpeed, transformers and the tools of the tests:")
    print(f"about {download:g} GB to download (less what uv's cache holds) and {disk:g} GB on disk, all of it under {VENV} and uv's cache.")
    if "nvidia-" in dry_run:
        print("No GPU? With a CPU build of torch it is half a gigabyte: GENTRAIN_TORCH=<wheel or requirement>, see docs/start/laptop.md.")
    free = shutil.disk_usage(ROOT).free / GIB
    if free < disk:
        print(f"make: only {free:.1f} GB of disk are free.", file=sys.stderr)
        raise subprocess.CalledProcessError(1, "disk")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
