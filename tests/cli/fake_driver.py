"""Stands in for trainjobs.workers.launch: writes what a trainer writes, quickly, and does what GTJ_FAKE asks.

python fake_driver.py RUN        GTJ_FAKE = train | slow | fail | killed-once | crash
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.run import progress

run = Path(sys.argv[1])
behaviour = os.environ.get("GTJ_FAKE", "train")
pace = float(os.environ.get("GTJ_FAKE_PACE", "0.01"))
lock = (run / "lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("fake driver here", flush=True)
job = json.loads((run / "job.json").read_text())
total = job["spec"]["training"]["steps"]
state = progress.read(run / "progress.json")
begin = (state.get("checkpoint") or {}).get("step", 0)
attempt = state.get("attempt", 0) + 1
progress.update(run, phase="Starting", message="starting workers", attempt=attempt)
time.sleep(10 * pace)
if behaviour == "crash":
    print("ImportError: this machine has no torch", flush=True)
    sys.exit(1)
progress.mark(run, "resumed" if begin else "started", attempt=attempt, step=begin, message=f"{job['spec']['compute']['workers']} workers")


def save(step: int) -> None:
    progress.update(run, checkpoint={"uri": "steps/x", "step": step, "committedAt": time.time()})
    progress.mark(run, "checkpoint", attempt=attempt, step=step)


with (run / "metrics.jsonl").open("a") as rows:
    for step in range(begin + 1, total + 1):
        rows.write(json.dumps({"step": step, "samples": 64 * step, "time": time.time(), "loss/D": 1 / step, "loss/G": 2 / step}) + "\n")
        rows.flush()
        progress.update(
            run, phase="Running", message="", step=step, totalSteps=total, samples=64 * step, etaSeconds=round((total - step) * pace),
            metrics={"loss/D": 1 / step, "loss/G": 2 / step}, throughput={"value": 812.4, "unit": "samples/s"}, memoryBytes=612 * 2**20,
        )  # fmt: skip
        time.sleep(pace)
        if step == total // 2:
            save(step)
            if behaviour == "killed-once" and attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if behaviour == "fail":
                error = JobError(
                    "GTJ0207", "the loss of D is NaN", where=f"step {step}", why="it grew for 20 steps", how="lower the learning rate"
                )
                progress.replace(run / "failure.json", json.dumps({**error.to_dict(), "rank": 0, "step": step}))
                progress.update(run, phase="Failed")
                progress.mark(run, "failed", attempt=attempt, step=step, message=error.line())
                sys.exit(5)
        if (run / "stop").exists() and behaviour != "slow":
            save(step)
            progress.update(run, phase="Stopped")
            progress.mark(run, "stopped", attempt=attempt, step=step)
            sys.exit(130)
save(total)
(run / "samples").mkdir(exist_ok=True)
(run / "samples" / f"step-{total:06d}.txt").write_text("one sample")
progress.update(run, phase="Succeeded")
progress.mark(run, "succeeded", attempt=attempt, step=total)
