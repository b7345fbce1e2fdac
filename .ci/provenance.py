"""What something was built from, as an in-toto statement (v1) with SLSA's provenance predicate (v1). Part of sbom.py.

It repeats what the build was told and could see, and is not signed: who signs it vouches for it. Run by itself it says of which commit the
working tree around it is, for a build that cannot see that:

    docker build --build-arg SOURCE=$(python3 .ci/provenance.py) ...
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUILD = "https://gentrain.dev/build/environment/v1"  # names, which lead nowhere
BUILDER = "https://gentrain.dev/builder/unnamed"


@dataclass(frozen=True)
class Inputs:
    """`commit` is None where nobody said it; `bases` are the arguments that name base images; `files` decided what was installed."""

    name: str
    commit: str | None
    dirty: bool
    bases: Mapping[str, str]
    files: tuple[Path, ...]
    builder: str

    def told(self) -> str:
        """In words."""
        if self.commit is None:
            return "of an unknown commit"
        return f"of commit {self.commit[:12]}{', with changes that are in no commit' if self.dirty else ''}"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", help="the commit, as provenance.py says it; default: of this working tree; empty: not known")
    parser.add_argument("--base", action="append", default=[], metavar="NAME=IMAGE", help="an argument of the build that names an image")
    parser.add_argument("--file", action="append", default=[], type=Path, help="what decided what was installed: constraints.txt")
    parser.add_argument("--subject", action="append", default=[], type=Path, help="what was built, beside the environment: the wheel")
    parser.add_argument("--builder", default=BUILDER, help="a URI that names who builds")


def inputs(given: argparse.Namespace) -> Inputs:
    """ValueError for a source that is no commit, a base without a name, and a file that is not there."""
    source = _described() if given.source is None else given.source.strip()
    found = re.fullmatch(r"([0-9a-f]{40}|[0-9a-f]{64})(-dirty)?", source)
    if source and not found:
        raise ValueError(f"--source {source!r} is no commit: give what `python3 .ci/provenance.py` says, or nothing")
    for base in given.base:
        if not re.fullmatch(r"\w+=\S+", base):
            raise ValueError(f"--base {base!r} is no NAME=IMAGE")
    for path in (*given.file, *given.subject):
        if not path.is_file():
            raise ValueError(f"{path} is no file")
    bases = dict(base.split("=", 1) for base in given.base)
    return Inputs(given.name, found and found[1], bool(found and found[2]), bases, tuple(given.file), given.builder or BUILDER)


def statement(built: Inputs, subjects: Iterable[Path], now: datetime.datetime) -> dict[str, Any]:
    """Says of the subjects what they were built from. An image without a digest in its name is listed without one."""
    source = [{"name": "source", "digest": {"gitCommit": built.commit}}] if built.commit else []
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": {"sha256": _digest(path)}} for path in subjects],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {"name": built.name, "source": _source(built), "bases": dict(built.bases)},
                "internalParameters": {"python": platform.python_version(), "platform": platform.platform()},
                "resolvedDependencies": [
                    *source,
                    *({"name": path.name, "digest": {"sha256": _digest(path)}} for path in built.files),
                    *(_image(name, reference) for name, reference in built.bases.items()),
                ],
            },
            "runDetails": {"builder": {"id": built.builder}, "metadata": {"finishedOn": now.strftime("%Y-%m-%dT%H:%M:%SZ")}},
        },
    }


def _source(built: Inputs) -> dict[str, Any]:
    return {"commit": built.commit or "unknown", **({"dirty": built.dirty} if built.commit else {})}


def _image(name: str, reference: str) -> dict[str, Any]:
    digest = re.search(r"@sha256:([0-9a-f]{64})$", reference)
    return {"name": name, "uri": f"docker://{reference}", **({"digest": {"sha256": digest[1]}} if digest else {})}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _described() -> str:
    """The commit of the working tree around this file, and "-dirty" when anything differs from it, be it a file that git does not know;
    "" where that is none, or there is no git."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}{'-dirty' if changes else ''}"


if __name__ == "__main__":
    print(_described())
