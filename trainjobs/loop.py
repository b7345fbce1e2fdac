"""The training loop: one function for every family, read from top to bottom.

All progress is two counters, the step and the samples drawn so far. Which samples come next, their noise, the learning rate and
the moving average follow from them and the seed, so a run that was killed goes on from its last commit as if nothing had happened,
to the last bit.

A step runs the objective's phases. A phase trains one network: some backward passes, then one step of its engine. This is the only
module that calls `backward` and `step`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from trainjobs.api.job import Job
from trainjobs.checkpointer import before, initial, onward
from trainjobs.checkpointer.built import built
from trainjobs.checkpointer.identity import custom_code, essentials, store_uri, versions
from trainjobs.checkpointer.latent import prepared
from trainjobs.checkpointer.restorer import Restorer
from trainjobs.checkpointer.saver import Saver
from trainjobs.checkpointer.trained import Trained
from trainjobs.checkpointer.untrained import frozen_digest, hidden_digest
from trainjobs.checkpoints import Commit
from trainjobs.data import look, open_source, origin_of, rule_of
from trainjobs.data.dataset import Dataset
from trainjobs.data.encoded import Encoded
from trainjobs.data.job_template import files
from trainjobs.data.origin import NAME
from trainjobs.data.pretrained import of_job as base_of
from trainjobs.data.surveys import surveys
from trainjobs.engine.compilation import compile_blocks
from trainjobs.engine.ema import Ema, share_buffers
from trainjobs.engine.engine import Engine, connect, flowing
from trainjobs.engine.frozen import freeze
from trainjobs.engine.gathered import gathered
from trainjobs.engine.stage import choose_stage
from trainjobs.evaluate.evaluation import drawing, evaluation, live, looked_at, shown
from trainjobs.evaluate.running_norms import estimated
from trainjobs.evaluate.setting import Setting
from trainjobs.evaluate.sheet import tell as tell_data
from trainjobs.evaluate.shown import real
from trainjobs.evaluate.ways import looks
from trainjobs.models.tf32 import tf32
from trainjobs.monitor import divergence
from trainjobs.monitor.beside import Beside
from trainjobs.monitor.orders import sync
from trainjobs.monitor.reporter import Reporter
from trainjobs.monitor.watches import tell_troubles
from trainjobs.noise import mix
from trainjobs.objectives.batches import Batches
from trainjobs.objectives.dropout import masks
from trainjobs.objectives.phase import At
from trainjobs.objectives.precision import autocast as autocast_to
from trainjobs.objectives.shaped import phases_of, shaped
from trainjobs.optim.schedule import kept as kept_average
from trainjobs.optim.schedule import rate
from trainjobs.plan.batch import cut
from trainjobs.plan.beside import beside, due
from trainjobs.run import progress
from trainjobs.run.outcome import Outcome
from trainjobs.state import State
from trainjobs.world import World

Beat = Callable[[int], None]


def train(
    job: Job,
    run: Path,
    world: World,
    *,
    since: float = 0.0,
    sync_every: int | None = None,
    note: Callable[[str], None] = lambda part: None,
    heartbeat: Beat = lambda step: None,
) -> Outcome:
    """Train a job to its last step, or until it is asked to stop. Every worker calls this alike; `run` is the run folder.

    `since` is when this run was started (seconds since the epoch; workers that are replaced start later). The workers exchange metrics
    about twice a second, or every `sync_every` steps. `note` is told when a part of the start is over, `heartbeat` the number of every
    step that is. Raises JobError for whatever a user can mend.
    """
    with tf32(job.spec.training.tf32), ExitStack() as ends:  # what is ended with the run, however it ends
        return _train(ends, job, run, world, since, sync_every, note, heartbeat)


def _train(
    ends: ExitStack, job: Job, run: Path, world: World, since: float, sync_every: int | None, note: Callable[[str], None], heartbeat: Beat
) -> Outcome:
    spec, seed = job.spec, job.spec.training.seed

    # What is trained, and on what: as it was, for a run that goes on.
    connect(world)
    began = world.lead(before.look, store_uri(job, run), spec, since)
    found = world.lead(look, spec, began.resolved)
    data = world.lead(origin_of, spec, found)
    changed, rule = before.compare_data(began, data, spec), began.rule or rule_of(spec)
    said, pin = partial(progress.preparing, run, world.leads, heartbeat), world.device.type == "cuda"
    datasets, cache = list[Dataset](), run / "cache"
    base = base_of(spec, cache, world, began.base)
    began_with = {"rule": rule, "tokenizer": before.tokenizer(began, spec, base, world), "orders": began.orders}
    opened = open_source(spec, cache, found, **began_with, ranks=world, aside=run, pin=pin, say=said, note=datasets.append)
    source, companion = prepared(spec, opened, found, cache, world, began.metadata, said, ends)
    note("data")
    torch.manual_seed(mix(seed, "weights"))
    model = built(spec, source.info, base, world, run, tell=said)
    objective, modules = model.objective, model.modules
    if spec.training.initial_weights is not None:
        initial.copied(spec.training.initial_weights, {of: modules[name] for name, of in model.copies.items()}, world, run)
    groups, still = shaped(model, spec)
    parameters = {name: sum(parameter.numel() for parameter in module.parameters()) for name, module in modules.items()}
    note("model")
    batch_cut = cut(spec.training.batch, world.size, most=spec.compute.worker_range[1] * world.each)
    stage = choose_stage(spec, model, groups, world, source, batch_cut)
    identity = {"spec": essentials(spec), "stage": stage, "versions": versions()}
    around = {"workers": world.size, "micro-batch": batch_cut.micro, "device": world.device.type, "threads": torch.get_num_threads()}
    identity |= before.account(spec, data, rule, source.info.orders, **around, objective=custom_code(spec))
    identity |= companion | ({"base": base.account} if base else {})
    identity["frozen"] = world.lead(frozen_digest, modules, {name: network.origin for name, network in model.networks.items()})
    identity |= {"drawing": world.lead(drawing, spec, source, batch_cut.micro), "hidden": world.lead(hidden_digest, objective, modules)}
    after = {name: network.after for name, network in model.networks.items()}
    engines = {
        name: Engine(name, modules[name], own, spec, stage, batch_cut.micro, world, after[name]) for name, own in groups.items() if own
    }
    for name, engine in engines.items():
        if model.networks[name].norm:
            engine.watch_norm()
    compile_blocks({name: engine.module for name, engine in engines.items()}, spec, objective, world.device)
    for name in groups.keys() - engines.keys():
        freeze(modules[name], spec, stage if model.networks[name].split else 0, batch_cut.micro, world)
    if model.encode is not None:
        source = Encoded(source, model.encode, world.device)
    state, phases = State(), phases_of(objective, modules, spec)
    averaged = {name: engine for name, engine in engines.items() if model.networks[name].averaged}
    ema = Ema(averaged, world) if spec.training.ema else None
    note("initialize")

    # What else is saved.
    aside = Beside.of(spec, objective)
    meter, lookout, followed, watches, keeps = aside.meter, aside.lookout, aside.followed, aside.watches, aside.keeps(objective, engines)

    # Where it goes on.
    small = {**files(source.info.tokenizer), **({NAME: data.listed()} if data.files and world.leads else {})}
    trained = Trained(engines, state, ema, keeps, beside=small)
    saver = Saver(store_uri(job, run), spec.checkpoints.keep, trained, world, identity, scratch=run)
    warn = partial(progress.warn, run, saver.attempt)
    restorer = Restorer(saver.checkpoints, trained, world, identity, run, reset=spec.checkpoints.allow_optimizer_reset)
    others = before.changes(began, identity)
    with before.named(others):
        saver.commit = restorer.restore(spec.checkpoints.resume_from, since, warn)
    taken = ""
    if saver.commit is None and spec.training.initial_weights is not None:
        taken = initial.load(spec.training.initial_weights, trained, world, run, partly=spec.training.allow_partial_weights)
    if saver.commit is not None and world.leads:
        peaks = {group.name: group.settings.learning_rate for own in groups.values() for group in own}
        for difference in onward.differences(saver.commit, spec.training, peaks, batch_cut, modules, stage):
            warn(difference)
    plan = beside(spec, *looked_at(spec, source, objective))
    reporter = Reporter(run, job, source.info, world, stage, saver, sync_every, plan=plan, parameters=parameters) if world.leads else None
    if reporter:
        reporter.resumed(changed, others)
        reporter.noted(state, taken)
        reporter.noted(state, source.info.note if saver.commit is None else "")
        reporter.real(real(opened, spec, plan.samples))
        if not (run / "samples" / "data.json").exists() or changed:
            with progress.spared(run, saver.attempt):
                surveyed = surveys(spec, found, cache, look=plan.samples, datasets=datasets, info=opened.info)
                tell_data(run / "samples", opened, seed, surveyed)
    note("resume")

    def tell(words: str) -> None:
        """What is being done beside steps: said by rank 0, and for every worker a sign of life."""
        heartbeat(state.step)
        if reporter:
            reporter.doing(words)

    def finish(*, required: bool = False) -> Commit | None:
        """End what is being saved; the commit that there is then."""
        happened = saver.finish(required=required)
        if reporter:
            reporter.heard(happened)
        return saver.commit

    autocast, late = autocast_to(spec.training.precision, world.device), reporter.doing if reporter else None
    batches = Batches(source, seed, batch_cut, world, modules, autocast, gathered, late=late).check(phases)
    setting = Setting.of(spec, source, objective, modules, world, batch_cut.micro, tell, cache, data.digest, warn)
    first, sync_at, rollbacks, back = state.step, state.step + 1, 0, None
    for engine in engines.values():
        engine.module.train()

    while state.step < spec.training.steps and not followed.over:
        at = At(state.step, state.samples, spec.training.steps)
        still.begin(state.step)
        factor = rate(spec.training.schedule, state.step, spec.training.steps) * followed.ratio
        rates = {f"lr/{group}": value for engine in engines.values() for group, value in engine.begin(state.step, factor).items()}

        # The step: every phase, as often as it repeats, over all micro-batches.
        for phase in phases:
            if state.step % phase.every:
                continue
            for turn in range(phase.repeat):
                with flowing(engines, phase.trains):
                    for batch, parts in batches.turn(phase, turn, state, at):
                        with masks(batch.noise):
                            with autocast:
                                loss, metrics = phase.loss(batch)
                            engines[phase.trains].backward(loss if parts == 1 else loss / parts)
                        meter.add(metrics, batch_cut.accumulation / parts if phase.weigh else 1.0)
                    saver.settle()
                    engines[phase.trains].step()
                    if phase.every == 1:
                        meter.add(engines[phase.trains].measured())
                state.samples += batch_cut.size if phase.advances else 0
        if ema and spec.training.ema:
            ema.update(kept_average(spec.training.ema, state.step, spec.samples_per_step))
        state.step += 1
        measured = meter.stepped(state, engines)
        aside.stepped(measured, world)
        heartbeat(state.step)
        if state.step == first + 1:
            note("first step")
            gc.collect()
            gc.freeze()  # what the start left behind is not looked at again by every later collection

        # What is due now? Every worker finds the same answer.
        last = state.step == spec.training.steps
        evaluate = last or due(state.step, plan.every)
        save, stop = last or due(state.step, plan.save), False
        if save or evaluate or state.step >= sync_at:
            means, orders, happened = sync(meter, world, reporter, saver, state.step, batches.wait)
            sync_at, stop = orders.next, orders.stop
            save = orders.save or (save and (last or not saver.holding))
            if reporter:
                reporter.heard(happened)

            # Has it diverged? Then it goes back: the same weights, but another future, without the batches up to the bad one.
            diverged = divergence.find(means, meter, engines, state, world, save=save) or lookout.find(meter, world, finish, warn)
            meter.clear()
            if diverged:
                divergence.refuse(diverged, finish(), rollbacks, spec.recovery)
                # Nothing was saved since it last went back: what went wrong may be in that checkpoint.
                back = saver.commit = restorer.restore("latest", since, warn, before=saver.commit if saver.commit == back else None)
                state.samples, rollbacks, sync_at = diverged.samples, rollbacks + 1, state.step + 1
                if reporter:
                    reporter.rolled_back(state, diverged.what, diverged.step)
                continue
            if reporter:
                reporter.stepped(state, {**means, **rates})

        # A look at what it has learned.
        if evaluate:
            count = plan.drawn(last)
            with reporter.aside("drawings" if count else "scores", state.step) if reporter else nullcontext():
                share_buffers(engines, world)
                here = At(state.step, state.samples, spec.training.steps)
                with ema.applied() if ema else nullcontext(), estimated(setting, here, ema.engines if ema else {}):
                    scores, samples = evaluation(setting, here, count)
                    words = followed.told(scores)
                    if followed.over and not last:  # this was the last step
                        last, save, count = True, True, plan.drawn(True)
                        samples = shown(setting, here, count)
                    seen = looks(setting, here) if count else None
                if ema:
                    scores |= live(setting, here)
                if reporter:
                    reporter.evaluated(state, scores, samples, setting.later)
                    reporter.looked(state, seen)
                    reporter.noted(state, words)
                if watches:
                    watches.evaluated(state.step, scores, setting.late)
        halt = tell_troubles(watches, reporter, spec) if watches else None

        # A checkpoint, beside the next steps.
        if save or halt:
            with reporter.aside("saves", state.step) if reporter else nullcontext():
                tell(f"saving step {state.step}")
                aside.gather(world)
                happened = saver.save(reporter.scores if reporter else {})
                if reporter:
                    reporter.heard(happened)
                if last or stop or halt:
                    finish(required=True)
        if halt:
            raise halt
        if stop and not last:
            finish()  # one that is on its way, where there was no time to begin another
            break

    how: Literal["finished", "stopped"] = "finished" if state.step == spec.training.steps or followed.over else "stopped"
    outcome: Outcome = world.share(reporter.ended(state, how, followed.why) if reporter else None)
    saver.close()
    return outcome
