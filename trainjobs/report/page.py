"""report.html: everything a run left, on one page that needs no network and opens from a file.

Written at the end of every run, whatever the end, and by `gtj report` at any time: each part shows what is there, and says so when
nothing is. All text passes through jinja2's escaping; the page's policy forbids it to load anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainjobs.api.errors import CODES, JobError
from trainjobs.api.metrics import METRICS
from trainjobs.api.uris import file_path
from trainjobs.report.timeline import strip, told
from trainjobs.run.folder import LIVE, Row, Run
from trainjobs.run.numbers import duration, instant, moment, number, short, size
from trainjobs.run.progress import replace

LIMIT = 5_000_000
LOG_LINES = 60
SUBJECTS = {
    "gan": "generative adversarial network",
    "vae": "variational auto-encoder",
    "diffusion": "diffusion model",
    "language": "language model",
    "custom": "custom objective",
}


def write_report(run: Path) -> Path:
    """Writes <run>/report.html, replacing it atomically, and returns its path. Less than 5 MB: samples give way first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("trainjobs.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("report.html.j2")
    folder = Run(run)
    budget = 2_500_000
    page = template.render(context(folder, budget))
    while len(page.encode()) > LIMIT and budget > 10_000:
        budget //= 4
        page = template.render(context(folder, budget))
    path = run / "report.html"
    replace(path, page)
    return path


def context(run: Run, budget: int) -> dict[str, Any]:
    """What the template prints. Plain data: nothing in it is read from the disk later."""
    from trainjobs.report.chart import drawn
    from trainjobs.report.curves import charts
    from trainjobs.report.gallery import samples

    rows, events, progress, phase = run.metrics(), run.attempts(), run.progress(), run.phase()
    return {
        "name": run.name,
        "subject": SUBJECTS.get(run.family(), ""),
        "family": run.family(),
        "source": run.spec().get("data", {}).get("source", ""),
        "phase": phase,
        "tone": {"Succeeded": "good", "Failed": "bad", "Interrupted": "warn", "Stopped": "warn"}.get(phase, "live"),
        "sentence": sentence(run, phase),
        "tiles": list(tiles(run, rows, events)),
        "failure": failure(run) if phase == "Failed" else None,
        "charts": [drawn(chart) for chart in charts(rows)],
        "samples": [asdict(sample) for sample in samples(run.path / "samples", budget=budget)],
        "strip": strip(events),
        "timeline": told(events),
        "checkpoints": checkpoints(run),
        "manifest": highlighted(text(run.path / "job.yaml")),
        "effective": highlighted(effective(run)),
        "machine": machine(run, progress),
        "written": moment(progress.get("updatedAt")),
        "folder": str(run.path),
        "logs": [path.name for path in sorted((run.path / "logs").glob("*.log"))],
    }


def sentence(run: Run, phase: str) -> str:
    """How it went, in one sentence."""
    progress = run.progress()
    step, total = progress.get("step", 0), progress.get("totalSteps")
    at = f"step {step} of {total}" if total else f"step {step}"
    if phase == "Succeeded":
        return f"Trained for {step} steps."
    if phase == "Failed":
        return f"Failed at {at}."
    if phase == "Stopped":
        return f"Stopped on request at {at}; the same command goes on from there."
    if phase in LIVE:
        return f"{phase}, at {at} when this page was written."
    return f"Interrupted at {at}: its process is gone. The same command goes on from the newest checkpoint."


def tiles(run: Run, rows: list[Row], events: list[Row]) -> Iterator[tuple[str, str, str]]:
    """(label, value, remark) of the headline numbers."""
    progress = run.progress()
    total = progress.get("totalSteps")
    yield "steps", short(progress.get("step", 0)), f"of {total}" if total else ""
    if (seen := number(progress.get("samples"))) is not None:
        yield "samples", f"{seen:,.0f}", ""
    for metric in METRICS:
        values = [value for row in rows if (value := number(row.get(metric.name))) is not None]
        if metric.tile and values:
            yield metric.tile, short(values[-1]), f"from {short(values[0])}" if len(values) > 1 else ""
    rate = progress.get("throughput") or {}
    if rate.get("value") is not None:
        yield "throughput", short(rate["value"]), str(rate.get("unit", ""))
    times = [at for event in events if (at := instant(event.get("time"))) is not None]
    if len(times) > 1:
        yield "training time", duration(max(times) - min(times)), f"{starts(events)} attempt{'s' if starts(events) != 1 else ''}"
    if memory := number(progress.get("memoryBytes")):
        yield "memory", size(memory), "peak of a worker"


def starts(events: list[Row]) -> int:
    return sum(1 for event in events if event.get("event") in ("started", "resumed"))


def failure(run: Run) -> dict[str, Any] | None:
    """The failure as what, where, why and how, with the end of the log."""
    found = run.failure()
    if found is None:
        return None
    code = str(found["code"])
    error = JobError.from_dict({"what": "", **found}) if code in CODES else None
    log = str(found.get("logTail") or text(run.driver_log))
    return {
        "code": code,
        "title": CODES[code].title if error else "",
        "what": found.get("what", ""),
        "parts": [(part, str(found[part])) for part in ("where", "why", "how") if found.get(part)],
        "rank": found.get("rank"),
        "step": found.get("step"),
        "log": "\n".join(log.splitlines()[-LOG_LINES:]),
    }


def checkpoints(run: Run) -> dict[str, Any]:
    """{"uri", "rows", "note"}: what the commit log says, or why it could not be asked."""
    from trainjobs.api.checkpoints import Keep
    from trainjobs.checkpoints import Checkpoints, open_store

    uri = run.checkpoints_uri()
    if uri.startswith("file://") and not Path(file_path(uri)).is_dir():
        return {"uri": uri, "rows": [], "note": "none was saved"}
    try:
        found = Checkpoints(open_store(uri), keep=Keep()).commits()
    except (JobError, OSError, ValueError) as error:
        return {"uri": uri, "rows": [], "note": error.line() if isinstance(error, JobError) else str(error)}
    rows = [
        {
            "step": status.commit.step,
            "attempt": status.commit.attempt,
            "at": moment(status.commit.committed_at),
            "size": size(status.commit.size_bytes),
            "world": status.commit.world,
            "digest": status.commit.manifest_digest.removeprefix("sha256:"),
            "state": status.state,
            "why": status.why,
            "prefix": status.commit.prefix,
        }
        for status in reversed(found)
    ]
    return {"uri": uri, "rows": rows, "note": "" if rows else "none was saved"}


def machine(run: Run, progress: Row) -> list[tuple[str, str]]:
    names = (("workers", "workers"), ("device", "device"), ("stage", "ZeRO stage"), ("attempt", "attempts"), ("restarts", "restarts"))
    found = [(label, str(progress[name])) for name, label in names if progress.get(name) is not None]
    return found + [(name, str(version)) for name, version in run.versions().items()]


def effective(run: Run) -> str:
    import yaml

    job = run.job()
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=120) if job else ""


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200_000]
    except OSError:
        return ""


def highlighted(yaml_text: str) -> Any:
    """YAML with its keys and comments marked, escaped."""
    from markupsafe import Markup, escape

    lines = []
    for line in yaml_text.splitlines():
        match = re.match(r"^(\s*(?:- )*)([\w./-]+)(:(?:\s|$))(.*)$", line)
        if line.lstrip().startswith("#"):
            lines.append(Markup("<i>{}</i>").format(line))
        elif match:
            value, comment = split_comment(match[4])
            lines.append(Markup("{}<b>{}</b>{}{}<i>{}</i>").format(match[1], match[2], match[3], value, comment))
        else:
            lines.append(escape(line))
    return Markup("\n").join(lines)


def split_comment(value: str) -> tuple[str, str]:
    """A value and the comment behind it. A # in quotes stays with the value."""
    position = value.find(" #")
    if position < 0 or value[:position].count('"') % 2 or value[:position].count("'") % 2:
        return value, ""
    return value[:position], value[position:]
