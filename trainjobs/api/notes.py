"""What a user should know of a job that breaks no rule: what will happen, where that may not be what was meant. Pure functions.

A note is a problem whose code has the exit status 0: it is shown like one, where it stands in the manifest, and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.job import Job, Spec
from trainjobs.api.problem import Problem
from trainjobs.api.training import Ema

LARGEST_BETA = 0.999  # what a schedule of noise is cut at
BETAS = {"linear": (1e-4, 0.02, 1), "scaled-linear": (0.00085**0.5, 0.012**0.5, 2)}  # first and last of 1000, before the power


def notes(job: Job) -> list[Problem]:
    """Every note on a job that has no problems."""
    spec = job.spec
    return [note for about in (warmup_ends, average_fits, noise_is_cut, sampler_visits) for note in about(spec)]


def warmup_ends(spec: Spec) -> Iterator[Problem]:
    steps, warmup = spec.training.steps, spec.training.schedule.warmup_steps
    if 0 < steps <= warmup:
        what = f"the warm-up of {warmup} steps does not end before the run, which has {steps}"
        reached = "the peak at the last step alone" if steps == warmup else f"at most {steps / warmup:.3g} of the peak"
        why = f"the learning rate rises to {reached}, and the schedule after the warm-up is never seen"
        place = ("spec", "training", "schedule", "warmupSteps")
        yield Problem("GTJ0123", place, what, why, "lower warmupSteps, or train for more steps", beside=("spec", "training", "steps"))


def average_fits(spec: Spec) -> Iterator[Problem]:
    """That the average reaches back no further than the run is long."""
    ema, steps = spec.training.ema, spec.training.steps
    if ema is None:
        return
    decay = ema.decays(spec.samples_per_step)
    if (1.0 - decay) * steps >= 1.0:
        return
    reach = f"{1.0 / (1.0 - decay):.0f} steps" if decay < 1.0 else "without end"
    field = "halfLife" if ema.half_life is not None else "decay"
    what = f"the moving average reaches back {reach}, and the run has {steps}"
    yield Problem("GTJ0124", ("spec", "training", "ema", field), what, at_the_end(ema, decay, steps), advice(ema, spec))


def at_the_end(ema: Ema, decay: float, steps: int) -> str:
    """What the average will be."""
    if not ema.warmup:
        return f"without warm-up {100 * decay**steps:.2g} % of it is the random start, also at the end"
    last = max(steps - 1, 1)
    warm = min(decay, (1 + last) / (10 + last))
    return f"its warm-up does not end: at the last step it keeps {warm:.3g} of itself, and so reaches back {1.0 / (1.0 - warm):.0f} steps"


def advice(ema: Ema, spec: Spec) -> str:
    steps = spec.training.steps
    if ema.half_life is not None:
        return f"a run of this length can do with a halfLife of {max(1, steps * spec.samples_per_step // 20)} samples"
    return f"a run of this length can do with a decay of {max(0.5, 1.0 - 10.0 / max(steps, 1)):.3g}"


def noise_is_cut(spec: Spec) -> Iterator[Problem]:
    """The linear schedules for few timesteps multiply each beta, and what comes out above 0.999 is cut. Of the cosine schedule that is the
    last one for any number of them, by design."""
    if spec.diffusion is None or spec.diffusion.process.schedule not in BETAS:
        return
    timesteps, schedule = spec.diffusion.process.timesteps, spec.diffusion.process.schedule
    cut = sum(beta > LARGEST_BETA for beta in betas(schedule, timesteps))
    if cut:
        what = f"{cut} of {timesteps} betas of the {schedule} noise schedule {'are' if cut > 1 else 'is'} cut at {LARGEST_BETA}"
        leaves = "those steps leave" if cut > 1 else "that step leaves"
        why = f"it is made for 1000 timesteps, and steeper with fewer: {leaves} next to nothing of an image"
        how = "use schedule: cosine, or more than 20 timesteps"
        yield Problem("GTJ0125", ("spec", "diffusion", "process", "timesteps"), what, why, how)


def betas(schedule: str, timesteps: int) -> list[float]:
    """Of objectives/diffusion/process.py, before they are cut."""
    first, last, power = BETAS[schedule]
    rise = (last - first) / (timesteps - 1)
    return [float(1000.0 / timesteps * (first + rise * step) ** power) for step in range(timesteps)]


def sampler_visits(spec: Spec) -> Iterator[Problem]:
    """The default of sampler.steps may be more than there are timesteps; another number is refused (diffusion.py)."""
    if spec.diffusion is not None and (most := spec.diffusion.evaluations) < spec.diffusion.sampler.steps:
        what = f"samples take {most} network evaluations, not {spec.diffusion.sampler.steps}"
        why = f"there are {most} timesteps, and each is visited once"
        place, beside = ("spec", "diffusion", "sampler", "steps"), ("spec", "diffusion", "process", "timesteps")
        yield Problem("GTJ0126", place, what, why, f"write sampler.steps: {most} or fewer", beside=beside)
