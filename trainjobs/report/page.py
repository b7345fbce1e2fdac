"""report.html: everything a run left, on one page that needs no network and opens from a file.

Written at the end of every run, whatever the end, and by `gtj report` at any time: each part shows what is there, and says so when
nothing is. All text passes through jinja2's escaping; the page's policy forbids it to load anything.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainjobs.api.errors import CODES, JobError
from trainjobs.api.uris import file_path
from trainjobs.report.marks import marks
from trainjobs.report.tiles import tiles
from trainjobs.report.timeline import strip, told
from trainjobs.run.folder import LIVE, Row, Run
from trainjobs.run.numbers import moment, size
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
    from trainjobs.report.configuration import changed, effective, highlighted
    from trainjobs.report.curves import charts, scales, steps
    from trainjobs.report.data import data
    from trainjobs.report.gallery import real, samples

    rows, events, progress, phase = run.metrics(), run.attempts(), run.progress(), run.phase()
    rate = progress.get("throughput")
    curves = charts(rows, run.family(), str(rate.get("unit", "")) if isinstance(rate, dict) else "")
    marked, beside, span = marks(events), real(run.path / "samples"), steps(curves)
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
        "charts": [drawn(chart, marked, log, span) for chart, log in zip(curves, scales(curves), strict=True)],
        "marks": list({mark.word: {"word": mark.word, "tone": mark.tone} for mark in marked}.values()),
        "heldout": bool(progress.get("heldoutSamples")),
        "real": asdict(beside) if beside else None,
        "samples": [asdict(sample) for sample in samples(run.path / "samples", budget=budget)],
        "data": data(run.path / "samples"),
        "strip": strip(events),
        "timeline": told(events, said_above=phase == "Failed" and run.failure() is not None),
        "checkpoints": checkpoints(run),
        "manifest": highlighted(text(run.path / "job.yaml")),
        "changes": changed(run.changes()),
        "effective": effective(run.job(), run.changes()),
        "machine": machine(run, progress),
        "written": moment(progress.get("updatedAt")),
        "folder": run.place,
        "recorded": "://" in run.place,
        "logs": [path.name for path in sorted((run.path / "logs").glob("*.log"))],
    }


def sentence(run: Run, phase: str) -> str:
    """How it went, in one sentence."""
    progress = run.progress()
    step, total = progress.get("step") or 0, progress.get("totalSteps")
    at = f"step {step} of {total}" if total else f"step {step}"
    if phase == "Succeeded":
        return f"Trained for {step} steps."
    if phase == "Failed":
        return f"Failed at {at}." if step else "Failed before its first step."
    if phase == "Stopped":
        return f"Stopped on request at {at}; the same command goes on from there."
    if phase in LIVE:
        return f"{phase}, at {at} when this page was written."
    return f"Interrupted at {at}: its process is gone. The same command goes on from the newest checkpoint."


def failure(run: Run) -> dict[str, Any] | None:
    """The failure as what, where, why and how, with the end of the log."""
    found = run.failure()
    if found is None:
        return None
    code = str(found["code"])
    error = JobError.from_dict({"what": "", **found}) if code in CODES else None
    log = str(found.get("logTail") or text(run.driver_log))
    if len(log.strip().splitlines()) == 1 and code in log:
        log = ""  # the error itself once more
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
    told = {"workers": "workers", "device": "device", "stage": "ZeRO stage", "attention": "attention", "ends": "what is drawn ends at"}
    names = (*told.items(), ("attempt", "attempts"), ("restarts", "restarts"))
    found = [(label, str(progress[name])) for name, label in names if progress.get(name) is not None]
    return found + [(name, str(version)) for name, version in run.versions().items()]


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200_000]
    except OSError:
        return ""
