"""The training loop: one function for every family, read from top to bottom.

All progress is two counters, the step and the samples drawn so far. Which samples come next, their noise, the learning rate and
the moving average follow from them and the seed, so a run that was killed goes on from its last commit as if nothing had happened,
to the last bit.

A step runs the objective's phases. A phase trains one network: some backward passes, then one step of its engine. This is the only
module that calls `backward` and `step`.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from trainjobs.api.job import Job, Spec
from trainjobs.checkpointer import initial
from trainjobs.checkpointer.identity import essentials, frozen_digest, model_digest, store_uri, versions
from trainjobs.checkpointer.restorer import Restorer
from trainjobs.checkpointer.saver import Saver
from trainjobs.checkpointer.trained import Trained
from trainjobs.data import Source, open_source
from trainjobs.data.sampler import order
from trainjobs.data.tokens import kept
from trainjobs.engine.ema import Ema, share_buffers
from trainjobs.engine.engine import Engine, connect
from trainjobs.engine.memory import device_memory
from trainjobs.evaluate.evaluation import look
from trainjobs.monitor import divergence
from trainjobs.monitor.divergence import Lookout
from trainjobs.monitor.meter import Meter
from trainjobs.monitor.reporter import Reporter
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build
from trainjobs.objectives.phase import Batch, Phase
from trainjobs.optim.schedule import rate
from trainjobs.plan.batch import Cut, cut
from trainjobs.plan.stage import lowest_stage
from trainjobs.run import progress
from trainjobs.state import State
from trainjobs.world import World

Outcome = Literal["finished", "stopped"]


def train(
    job: Job,
    run: Path,
    world: World,
    *,
    since: float = 0.0,
    talk_every: int | None = None,
    note: Callable[[str], None] = lambda part: None,
    beat: Callable[[int], None] = lambda step: None,
) -> Outcome:
    """Train a job to its last step, or until it is asked to stop. Every worker calls this alike; `run` is the run folder.

    `since` is when this run was started (seconds since the epoch; workers that are replaced start later). The workers exchange metrics
    about twice a second, or every `talk_every` steps. `note` is told when a part of the start is over, `beat` the number of every step
    that is. Raises JobError for whatever a user can mend.
    """
    spec, seed = job.spec, job.spec.training.seed

    # What is trained, and on what.
    connect(world)
    source = open_source(spec, run / "cache")
    note("data")
    torch.manual_seed(mix(seed, "weights"))
    networks, objective = build(spec, source.info)
    trainable = {name: [p for p in network.parameters() if p.requires_grad] for name, network in networks.items()}
    note("model")
    batch_cut = cut(spec.training.batch, world.size, most=spec.compute.worker_range[1] * world.each)
    stage = choose_stage(spec, trainable, world)
    identity = {"model": model_digest(spec), "spec": essentials(spec), "stage": stage, "versions": versions()}
    identity["frozen"] = world.lead(frozen_digest, networks)
    engines = {name: Engine(name, network, spec, stage, batch_cut.micro, world) for name, network in networks.items()}
    state = State()
    ema = Ema(engines, spec.training.ema.decay, world) if spec.training.ema else None
    note("initialize")

    # Where it goes on.
    trained = Trained(engines, state, ema, objective, beside=kept(source.info.tokenizer))
    saver = Saver(store_uri(job, run), spec.checkpoints.keep, trained, world, identity, scratch=run)
    warn = partial(progress.warn, run, saver.attempt)
    restorer = Restorer(saver.checkpoints, trained, world, identity, run, reset=spec.checkpoints.allow_optimizer_reset)
    saver.commit = restorer.restore(spec.checkpoints.resume_from, since, warn)
    if saver.commit is None and spec.training.initial_weights is not None:
        initial.load(spec.training.initial_weights, trained, world, run)
    reporter = Reporter(run, job, source.info, world, stage, saver, talk_every) if world.leads else None
    note("resume")

    meter, lookout = Meter(), Lookout(spec.recovery)
    lookout.back(saver.commit)
    autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=spec.training.precision == "bf16")
    first, talk_at, rollbacks, back = state.step, state.step + 1, 0, None
    for network in networks.values():
        network.train()

    while state.step < spec.training.steps:
        factor = rate(spec.training.schedule, state.step, spec.training.steps)
        rates = {f"lr/{name}": engine.set_rate(factor) for name, engine in engines.items()}

        # The step: every phase, as often as it repeats, over all micro-batches.
        for phase in objective.phases:
            if state.step % phase.every:
                continue
            for repetition in range(phase.repeat):
                with only_trainable(trainable, phase.trains):
                    for batch in micro_batches(phase, repetition, seed, state, source, batch_cut, world):
                        with autocast:
                            loss, metrics = phase.loss(batch)
                        engines[phase.trains].backward(loss / batch_cut.accumulation)
                        meter.add(metrics)
                    saver.settle()
                    engines[phase.trains].step()
                state.samples += batch_cut.size if phase.draws else 0
        if ema:
            ema.update()
        state.step += 1
        meter.stepped(state, engines)
        beat(state.step)
        if state.step == first + 1:
            note("first step")
            gc.collect()
            gc.freeze()  # what the start left behind is not looked at again by every later collection

        # What is due now? Every worker finds the same answer.
        last = state.step == spec.training.steps
        evaluate = last or due(state.step, spec.evaluation.every_steps or math.ceil(spec.training.steps / 10))
        save = last or due(state.step, save_interval(spec))
        stop = False
        if save or evaluate or state.step >= talk_at:
            means, (talk_at, stop, timed) = talk(meter, world, reporter, saver, state.step)
            save = timed or (save and (last or not saver.holding))
            diverged = divergence.find(means, meter, engines, state, world, save=save) or lookout.find(meter, world, saver, warn)
            meter.clear()
            if diverged:
                saver.finish()
                divergence.refuse(diverged, saver.commit, rollbacks, spec.recovery)
                # Nothing was saved since it last went back: what went wrong may be in that checkpoint.
                back = saver.commit = restorer.restore("latest", since, warn, before=saver.commit if saver.commit == back else None)
                lookout.back(back)
                # The same weights, but what follows is another future: the batches up to the bad one are left out.
                state.samples, rollbacks, talk_at = diverged.samples, rollbacks + 1, state.step + 1
                if reporter:
                    reporter.rolled_back(state, diverged.what, diverged.step)
                continue
            if reporter:
                reporter.stepped(state, {**means, **rates})
        if evaluate:
            with reporter.aside() if reporter else nullcontext():
                share_buffers(engines, world)
                with ema.applied() if ema else nullcontext():
                    scores, samples = look(spec, source, objective, networks, world)
            if reporter:
                reporter.evaluated(state, scores, samples)
        if save:
            with reporter.aside() if reporter else nullcontext():
                saver.save(reporter.scores if reporter else {}, lookout.kept())
                if last or stop:
                    saver.finish(required=True)
        if stop and not last:
            saver.finish()  # one that is on its way, where there was no time to begin another
            if reporter:
                reporter.ended("stopped")
            saver.close()
            return "stopped"

    if reporter:
        reporter.ended("finished")
    saver.close()
    return "finished"


def micro_batches(phase: Phase, repetition: int, seed: int, state: State, source: Source, batch_cut: Cut, world: World) -> Iterator[Batch]:
    """This worker's part of the next global batch, micro-batch by micro-batch.

    Positions in the stream of data name the samples and their noise, so the batch is the same however it is cut.
    """
    device = world.device
    for turn in range(batch_cut.accumulation):
        rows = batch_cut.rows(world.rank, turn)
        start = state.samples + rows.start
        noise = Noise.of(seed, state.step, f"{phase.name}.{repetition}", torch.arange(start, start + len(rows), device=device))
        data = source.batch(order(seed, start, len(rows), source.info.length), noise) if phase.draws else {}
        # Dropout draws from torch's own generator: seeded here, it needs no saving either.
        torch.default_generator.manual_seed(mix(noise.seed, start))
        if device.type == "cuda":
            torch.cuda.manual_seed(mix(noise.seed, start))
        yield Batch(data, noise, len(rows))


@contextmanager
def only_trainable(trainable: Mapping[str, Sequence[nn.Parameter]], name: str) -> Iterator[None]:
    """Gradients flow into the weights of one network only; through the others they pass to its outputs."""
    others = [parameter for other, parameters in trainable.items() if other != name for parameter in parameters]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def talk(meter: Meter, world: World, reporter: Reporter | None, saver: Saver, step: int) -> tuple[dict[str, float], tuple[int, bool, bool]]:
    """Metrics averaged over the workers, and what rank 0 decides: the step of the next talk, whether to stop, whether a checkpoint
    is due, by the clock or before a stop. One collective for all of it, and for how far the ranks are with the last checkpoint."""
    means = meter.take()
    orders = reporter.orders(step) if reporter else (0, False, False)
    total = world.sum([*means.values(), *map(float, orders), *saver.report()])
    next_talk, stop, timed = total[-6:-3]
    saver.hear(*total[-3:])
    return {name: value / world.size for name, value in zip(means, total, strict=False)}, (int(next_talk), stop > 0, timed > 0)


def due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def save_interval(spec: Spec) -> int | None:
    """Steps between checkpoints: as the manifest says, else a tenth of the run; None when the clock decides."""
    every = spec.checkpoints.every
    return math.ceil(spec.training.steps / 10) if every is None else every.steps


def choose_stage(spec: Spec, trainable: Mapping[str, Sequence[nn.Parameter]], world: World) -> int:
    """The manifest's ZeRO stage, or the lowest that fits: of an elastic group, however small it becomes."""
    if spec.deepspeed.stage != "auto":
        return spec.deepspeed.stage
    parameters = sum(parameter.numel() for network in trainable.values() for parameter in network)
    memory = world.share(device_memory(world.device))  # the same answer on unequal machines
    ranks = spec.compute.worker_range[0] * world.each if spec.compute.elastic else world.size
    return lowest_stage(parameters, ranks, spec.training.precision, memory, highest=2 if spec.gan else 3)
