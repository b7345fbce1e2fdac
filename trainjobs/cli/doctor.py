"""gtj doctor: whether this machine can train, and what to mend where it cannot.

Quick on purpose: versions come from the distributions' metadata, the GPU from nvidia-smi; nothing heavy is imported.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from trainjobs.cli.cluster.options import place_options
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.finding import COLOURS
from trainjobs.cli.finding import Finding as Finding
from trainjobs.cli.output import RUNS, columns, emit, folded, format_option, painted
from trainjobs.cli.prepare import cores
from trainjobs.cli.version import installed
from trainjobs.run.numbers import size

GIB = 1024**3
TRAIN = "in a clone of Gentrain: make install, or pip install '.[train]'"


@click.command("doctor", short_help="Check that this machine, or a cluster, can train; say what to mend.")
@place_options
@format_option
def command(target: Target | None, form: str) -> int:
    """Check Python, packages, GPU, cores, memory, disk and compiler. With --cluster, list a cluster's node pools, the compute profiles that
    fit them, and what is missing. Ends with 4 when something keeps jobs from training."""
    if target is not None:
        return of_cluster(target, form)
    findings = list(checked())
    if form == "table":
        for finding in findings:
            mark = painted(f"{finding.level:<4}", COLOURS[finding.level])
            click.echo(f"{mark}  {finding.subject:<14}{finding.detail}")
            if finding.mend:
                click.echo(f"      {'':<14}{finding.mend}")
    else:
        emit([asdict(finding) for finding in findings], form)
    return 4 if any(finding.level == "fail" for finding in findings) else 0


def of_cluster(target: Target, form: str) -> int:
    """The same of a cluster's nodes and profiles."""
    from trainjobs.cli.cluster.doctor import looked
    from trainjobs.cli.cluster.server import connect

    cluster = connect(target)
    pools, findings = looked(cluster)
    if form != "table":
        emit({"pools": [pool.as_data() for pool in pools], "findings": [asdict(finding) for finding in findings]}, form)
        return 4 if any(finding.level == "fail" for finding in findings) else 0
    wide = max(60, columns())
    for line in folded("", cluster.where, wide):
        click.echo(painted(line, dim=True))
    for pool in pools:
        has = f"{pool.gpus} x {pool.accelerator or 'GPU'}" if pool.gpus or pool.accelerator else "no accelerators"
        many = f"{len(pool.nodes)} node{'s' if len(pool.nodes) > 1 else ''}"
        what = ", ".join(filter(None, (pool.instance, has, many, "spot" if pool.spot else "")))
        for line in folded(f"{pool.kind:<14}", what, wide):
            click.echo(line)
        for line in folded(f"{'':<14}", f"profiles: {', '.join(pool.profiles) or 'none fits'}", wide):
            click.echo(line)
    for finding in findings:
        head, *rest = folded(f"{finding.level:<4}  {finding.subject:<17}", finding.detail, wide)
        click.echo(painted(head[:4], COLOURS[finding.level]) + head[4:])
        for line in (*rest, *(folded(" " * 23, finding.mend, wide) if finding.mend else ())):
            click.echo(line)
    return 4 if any(finding.level == "fail" for finding in findings) else 0


def checked() -> Iterator[Finding]:
    yield python(sys.version_info[:2])
    yield package("torch", "2.11", "fail", installed)
    yield package("deepspeed", "0.19.8", "fail", installed)
    yield package("ray", "2.60", "warn", installed)
    yield package("transformers", "5.20", "warn", installed)
    yield gpu(nvidia_smi())
    yield processors(cores())
    yield memory(available_memory())
    yield disk(RUNS, free_bytes(RUNS))
    yield compiler(shutil.which)
    yield folder(RUNS)


def python(version: tuple[int, ...]) -> Finding:
    text = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= version < (3, 14):
        return Finding("ok", "python", text)
    return Finding("fail", "python", text, "Python 3.11, 3.12 or 3.13 is needed")


def package(name: str, wanted: str, level: Literal["warn", "fail"], version_of: Callable[[str], str | None]) -> Finding:
    """Whether a package is there, not older than `wanted`. `level` says how bad it is when it is not."""
    found = version_of(name)
    if found is None:
        use = {"ray": "without it only `gtj run --no-ray` works; ", "transformers": "without it no language models; "}.get(name, "")
        return Finding(level, name, "not installed", use + TRAIN)
    if numbers(found) < numbers(wanted):
        return Finding("warn", name, f"{found}, older than {wanted}, with which this version is tested", TRAIN)
    return Finding("ok", name, found)


def numbers(version: str) -> tuple[int, ...]:
    """ "2.13.0+cu130" -> (2, 13, 0): enough to compare releases."""
    parts = version.split("+")[0].split(".")
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts)


def nvidia_smi() -> list[str] | None:
    """ "name, memory" of each GPU; [] when the driver finds none, None when there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]


def gpu(found: list[str] | None) -> Finding:
    if found:
        return Finding("ok", "gpu", "; ".join(found))
    if found is None:
        return Finding("ok", "gpu", "none: trains on CPU")
    mend = "run nvidia-smi; often the driver needs a reload or a reboot"
    return Finding("warn", "gpu", "nvidia-smi is there and answers with an error: trains on CPU", mend)


def processors(count: int) -> Finding:
    if count >= 2:
        return Finding("ok", "cores", f"{count} usable: at most {count} workers")
    return Finding("warn", "cores", "1 usable: one worker", "give the container or the shell more cores (taskset, cpuset)")


def available_memory() -> int | None:
    """Bytes a new process could use: the smaller of what the machine and the control group have left. None when unknown."""
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        machine = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return machine if limit == "max" else min(machine, int(limit) - used)
    except (OSError, ValueError):
        return machine


def memory(available: int | None) -> Finding:
    if available is None:
        return Finding("warn", "memory", "unknown", "")
    if available >= 4 * GIB:
        return Finding("ok", "memory", f"{size(available)} available")
    mend = "each worker needs about 1.5 GiB before the model: fewer workers, or close something"
    return Finding("warn", "memory", f"{size(available)} available", mend)


def free_bytes(path: Path) -> int:
    """Free space of the disk that holds `path`, which may not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def disk(path: Path, free: int) -> Finding:
    if free >= 5 * GIB:
        return Finding("ok", "disk", f"{size(free)} free for {path}")
    level: Literal["warn", "fail"] = "warn" if free >= GIB // 2 else "fail"
    mend = "a checkpoint takes 12 to 16 bytes per parameter: make room, or use --run-dir"
    return Finding(level, "disk", f"{size(free)} free for {path}", mend)


def compiler(which: Callable[[str], str | None]) -> Finding:
    found = which("g++") or which("c++") or which("clang++")
    if not found:
        return Finding("warn", "compiler", "no C++ compiler", "DeepSpeed builds small extensions as it starts: apt-get install g++")
    # Ninja comes as a Python package beside the interpreter, or as a program of the system.
    if importlib.util.find_spec("ninja") is None and which("ninja") is None:
        return Finding("warn", "compiler", f"{found}, but no ninja", "pip install ninja")
    return Finding("ok", "compiler", found)


def folder(path: Path) -> Finding:
    """Whether runs can be written, without leaving anything behind."""
    holder = path.absolute()
    while not holder.exists():
        holder = holder.parent
    if holder.is_dir() and os.access(holder, os.W_OK | os.X_OK):
        return Finding("ok", "run folder", f"{path} can be written")
    return Finding("fail", "run folder", f"{path} cannot be written", "change to another folder, or use --run-dir")
