"""What rank 0 tells while it trains, and what it decides for all: when to sync next, whether to save, and whether to leave."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.checkpointer.saver import Happened, Saver
from trainjobs.checkpoints import Commit
from trainjobs.data import ring
from trainjobs.data.source import DataInfo
from trainjobs.evaluate.later import Later
from trainjobs.evaluate.pictures import save_samples
from trainjobs.evaluate.rows import names_of, save_sheet
from trainjobs.evaluate.ways import Looks, save_looks
from trainjobs.monitor import tracking
from trainjobs.monitor.beginning import begun, emulated
from trainjobs.monitor.diary import Diary, aloud
from trainjobs.monitor.meter import memory
from trainjobs.monitor.orders import Orders
from trainjobs.monitor.times import Kind, Times
from trainjobs.objectives.phase import Samples
from trainjobs.plan.beside import Beside, beside
from trainjobs.run import preemption, progress
from trainjobs.run.numbers import short
from trainjobs.run.outcome import Outcome
from trainjobs.run.preemption import LastSave, Notice
from trainjobs.run.rewind import rewind
from trainjobs.state import State
from trainjobs.world import World

SYNC_SECONDS = 0.5
TOLD_SECONDS = 0.5  # between two words of what is being done beside steps
ACTIVITY = 200  # characters of it, at most


class Reporter:
    """Writes progress.json, metrics.jsonl, the timeline and samples into the run folder."""

    def __init__(
        self,
        run: Path,
        job: Job,
        info: DataInfo,
        world: World,
        stage: int,
        saver: Saver,
        sync_every: int | None = None,
        *,
        parameters: Mapping[str, int] | None = None,
        now: Callable[[], float] = time.time,
        plan: Beside | None = None,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = aloud,
    ) -> None:
        """`now` is seconds since the epoch, for people; `clock` measures. `parameters` of each network; `say` takes rank 0's lines."""
        self._run, self._job, self._info, self._world, self._now = run, job, info, world, now
        commit, attempt = saver.commit, saver.attempt
        step = commit.step if commit else 0
        self._saver, self._sync_every = saver, sync_every
        self._not_saved, self._troubled = False, True
        self._later: Later | None = None
        self._evaluated = step
        self._tracking = tracking.begin(job, run, partial(progress.warn, run, attempt))
        rewind(run, step, now)
        self._diary = Diary(job.spec.training.steps, say, now)
        self._metrics = progress.Metrics(run, step, now)
        before, every = progress.read(run / "progress.json"), job.spec.checkpoints.every
        plan = plan or beside(job.spec, info.heldout, 0)
        self._times = Times(job.spec.training.steps, plan, every.minutes if every else None, before.get("spent") or {}, clock)
        self._times.begin(step)
        self._clock, self._told_at, self._step = clock, -math.inf, step
        self._saved_at = now()
        self._size, self._save_seconds = commit.size_bytes if commit else 0, (before.get("checkpoint") or {}).get("seconds")
        self._leaving: tuple[Notice, LastSave] | None = None
        self.scores: dict[str, float] = dict(commit.metrics) if commit else {}
        group = begun(world, stage, commit, before, job.spec)
        self._mark("resumed" if commit else "started", step=step, message=group, spent=self._times.spent())
        for told in (plan.told, emulated(world, job.spec.training.precision)):
            if told and not progress.marked(run, told):
                self._mark("note", step=step, message=told)
        self._show(
            phase="Running", totalSteps=job.spec.training.steps, attempt=attempt, workers=world.workers, stage=stage,
            device=world.device.type, parameters=dict(parameters or {}), trainingSamples=info.length, heldoutSamples=info.heldout,
            message=f"resumed from step {step}" if commit else "",
            **self._stands(step), **({"samples": commit.samples, "checkpoint": self._checkpoint(commit)} if commit else {"samples": 0}),
        )  # fmt: skip

    def resumed(self, data: str | None, others: Sequence[str]) -> None:
        """Tell what is not as it was at the checkpoint: of the data, and of all else. Once: the next checkpoint has it as it is now."""
        step = self._saver.commit.step if self._saver.commit else 0
        if data is not None:
            self._mark("dataChanged", step=step, message=f"the data has changed since the checkpoint of step {step}: {data}")
        if others:
            self._mark("changed", step=step, message=f"changed since the checkpoint of step {step}: {', '.join(others)}")

    def orders(self, step: int) -> Orders:
        rate = self._times.look(step)
        ahead = self._sync_every or max(1, min(1000, round(rate * SYNC_SECONDS)))
        every = self._job.spec.checkpoints.every
        timed = every is not None and every.minutes is not None and self._now() - self._saved_at >= 60 * every.minutes
        notice = preemption.pending(self._run)
        if notice is None:
            return Orders(step + ahead, False, timed or bool(self._saver.again()))
        verdict = self._would_save(0.0, None if notice.deadline is None else notice.deadline - self._now())
        self._leaving = notice, verdict
        self._show(phase="Stopping", message=preemption.told(notice, verdict))
        return Orders(step + ahead, True, verdict.take)

    @contextmanager
    def aside(self, kind: Kind, step: int) -> Iterator[None]:
        """In the block something else is done than a step; `doing` says how far it is."""
        self._told_at, self._step = -math.inf, step
        with self._times.aside(kind, step):
            yield
        self._show(activity=None, etaSeconds=self._eta(step), spent=self._times.spent())

    def doing(self, words: str) -> None:
        """What is being done beside steps, in a few words. Asked much more often than it is written."""
        if self._clock() - self._told_at >= TOLD_SECONDS:
            self._told_at = self._clock()
            self._show(activity=words[:ACTIVITY], etaSeconds=self._eta(self._step))

    def stepped(self, state: State, row: Mapping[str, float]) -> None:
        """A row of metrics."""
        self._late()
        unit = "tokens/s" if self._info.kind == "text" else "samples/s"
        per_step = self._job.spec.training.batch.global_ * (self._info.shape[0] if self._info.kind == "text" else 1)
        throughput = self._times.per_second * per_step
        self._row(state.step, {"samples": state.samples, **row, "throughput": throughput})
        self._diary.stepped(state.step, row, f"{throughput:.0f} {unit}")
        self._show(
            step=state.step,
            samples=state.samples,
            activity=None,
            percent=round(100 * state.step / self._job.spec.training.steps, 1),
            etaSeconds=self._eta(state.step),
            metrics={name: progress.plain(value) for name, value in row.items() if not name.startswith("lr/")},
            spent=self._times.spent(),
            throughput={"value": round(throughput, 1), "unit": unit},
            memoryBytes=memory(self._world.device),
        )

    def evaluated(self, state: State, scores: Mapping[str, float], samples: Samples, later: Later | None = None) -> None:
        """Held-out scores and what the model drew; `later` has those that are still computed."""
        self._later, self.scores, self._evaluated = later, dict(scores), state.step
        folder = self._run / "samples"
        folder.mkdir(exist_ok=True)
        if samples != Samples():
            rows = names_of(self._job.spec, self._info)
            save_sheet(samples, folder / f"step-{state.step:06d}", rows=rows, modes=self._info.modes)
        self._scored(state.step, scores)
        self._late()

    def _scored(self, step: int, scores: Mapping[str, float]) -> None:
        if scores:
            self._row(step, scores)
        self._mark("evaluated", said=", ".join(f"{name} {short(value)}" for name, value in scores.items()), step=step, metrics=dict(scores))

    def _late(self, *, wait: bool = False) -> None:
        """Scores that are there by now, of evaluations that were told without them."""
        for step, scores in (self._later.all() if wait else self._later.ready()) if self._later else ():
            self.scores |= scores if step == self._evaluated else {}
            self._scored(step, scores)

    def real(self, samples: Samples | None) -> None:
        """Real samples, to look at beside what the model draws."""
        if samples is not None:
            save_samples(samples, self._run / "samples" / "real", modes=self._info.modes, sigma=ring.SIGMA)

    def looked(self, state: State, looks: Looks | None) -> None:
        """Held-out samples, and what the model made of them; and what lies between two that it draws."""
        if looks:
            save_looks(looks, self._run / "samples", state.step, self._info.modes)

    def noted(self, state: State, words: str) -> None:
        """Something happened that is no mistake; "" for nothing."""
        if words:
            self._mark("note", step=state.step, message=words)

    def heard(self, happened: Happened) -> None:
        """What became of a save."""
        if isinstance(happened, Commit):
            self.saved(happened)
        elif happened is not None:
            self.not_saved(happened)

    def saved(self, commit: Commit) -> None:
        self._not_saved = False
        self._saved_at, self._size, self._save_seconds = self._now(), commit.size_bytes, self._saver.pace * self._saver.size
        self._mark("checkpoint", step=commit.step)
        self._show(checkpoint=self._checkpoint(commit), checkpointFailure=None)

    def not_saved(self, error: JobError) -> None:
        """A checkpoint could not be written; training goes on. It is news when the one before went well."""
        if not self._not_saved:
            progress.warn(self._run, self._saver.attempt, error)
        self._not_saved = True
        self._show(checkpointFailure=error.line())

    def troubled(self, news: Sequence[JobError]) -> None:
        """The run goes on, and something is not well with it."""
        for error in news:
            progress.warn(self._run, self._saver.attempt, error)
            self._diary.event("warning", self._step, error.line())
        self._troubled = True
        self._show(warning=news[-1].line())

    def untroubled(self) -> None:
        if self._troubled:
            self._show(warning=None)
        self._troubled = False

    def rolled_back(self, state: State, what: str, bad: int) -> None:
        """The run went back to `state`, because of `what` at step `bad`: "loss not finite"."""
        if self._later:
            self._later.forget()
        self._metrics.close()
        rewind(self._run, state.step, self._now)
        self._metrics = progress.Metrics(self._run, state.step, self._now)
        self._times.begin(state.step)
        message = f"{what} at step {bad}: back to step {state.step}, the batches in between are left out"
        self._mark("rolled back", step=state.step, message=message)
        self._show(samples=state.samples, message=message, **self._stands(state.step))

    def ended(self, state: State, how: Literal["finished", "stopped"], why: str = "") -> Outcome:
        """The run is over, or this group of workers is. Returns what the ranks are to know of it: it stopped for another one to follow?
        `why` a run finished before its last step."""
        self._late(wait=how == "finished")
        self._metrics.close()
        self._tracking.finish(how == "finished")
        outcome = Outcome(how, why)
        if how == "finished" or self._leaving is None:
            event, phase, message = ("succeeded", "Succeeded", why) if how == "finished" else ("stopped", "Stopped", "")
        else:
            notice, verdict = self._leaving
            event, phase = notice.event, "Recovering" if notice.replaces else "Stopped"
            message = preemption.told(notice, verdict) if notice.replaces or notice.deadline is not None else ""
            outcome = Outcome("replaced" if notice.replaces else "stopped", message)
        more = {"message": message} if message else {}
        self._mark(event, step=state.step, **more)
        self._show(phase=phase, etaSeconds=0 if how == "finished" else None, message=message, activity=None, spent=self._times.spent())
        return outcome

    def _would_save(self, wait: float, left: float | None) -> LastSave:
        """Whether a checkpoint that begins in `wait` seconds fits into what is left of the time."""
        pace = self._save_seconds / self._size if self._save_seconds is not None and self._size else None
        return preemption.decide(self._size, pace, wait, left)

    def _checkpoint(self, commit: Commit) -> dict[str, object]:
        """As progress.json has it; `seconds` is how long the last save took, `fitsGrace` whether it would fit into a pod's last seconds."""
        grace = os.environ.get(preemption.GRACE)
        return {
            "uri": commit.prefix,
            "step": commit.step,
            "committedAt": commit.committed_at,
            "sizeBytes": commit.size_bytes,
            **({"seconds": round(self._save_seconds, 3)} if self._save_seconds is not None else {}),
            **({"fitsGrace": self._would_save(self._next_sync(), float(grace)).take} if grace else {}),
        }

    def _next_sync(self) -> float:
        """Seconds until what is asked now is heard, at most."""
        return max(SYNC_SECONDS, 1 / self._times.per_second if self._times.per_second else 0.0)

    def _eta(self, step: int) -> int | None:
        left = self._times.left(step)
        return None if left is None else round(left)

    def _stands(self, step: int) -> dict[str, object]:
        """What progress.json says where nothing was trained yet behind `step`: the metrics are those of the rows that stay."""
        last = self._metrics.last
        metrics = {name: value for name, value in last.items() if name not in ("step", "time", "samples", "throughput")}
        return {
            "step": step,
            "percent": round(100 * step / self._job.spec.training.steps, 1),
            "etaSeconds": None,
            "activity": None,
            "metrics": {name: value for name, value in metrics.items() if not name.startswith("lr/")},
        }

    def _row(self, step: int, row: Mapping[str, float]) -> None:
        self._metrics.write(step, row)
        self._tracking.log(step, row)

    def _mark(self, event: str, *, step: int, said: str = "", **fields: object) -> None:
        """In the timeline, and in rank 0's log: there with `said` where it has no message."""
        progress.mark(self._run, event, self._now, attempt=self._saver.attempt, step=step, **fields)
        self._diary.event(event, step, str(fields.get("message") or said))

    def _show(self, **fields: object) -> None:
        progress.update(self._run, self._now, **fields)
