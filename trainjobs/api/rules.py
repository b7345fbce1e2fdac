"""Every rule of a job and of a profile, gathered from the parts that they are about. Pure functions: a manifest in, its problems out."""

from __future__ import annotations

from trainjobs.api import (
    between,
    bucket_rules,
    checkpoints,
    compile_rules,
    compute,
    curriculum,
    curriculum_rules,
    data,
    diffusion,
    diffusion_pretrained_rules,
    follows,
    gan_rules,
    instance_rules,
    job,
    language,
    language_rules,
    latent_rules,
    learners,
    pretrained_rules,
    profile,
    quality,
    recovery,
    reserved,
    task_rules,
    training,
    vae,
    win_rules,
)
from trainjobs.api.job import Job, Spec
from trainjobs.api.only import effect_rules
from trainjobs.api.problem import Problem
from trainjobs.api.profile import Profile
from trainjobs.api.rule import Known

RULES = (
    *job.RULES,
    *between.RULES,
    *data.RULES,
    *curriculum.RULES,
    *bucket_rules.RULES,
    *curriculum_rules.RULES,
    *instance_rules.RULES,
    *checkpoints.RULES,
    *training.RULES,
    *compile_rules.RULES,
    *follows.RULES,
    *quality.RULES,
    *learners.RULES,
    *gan_rules.RULES,
    *vae.RULES,
    *diffusion.RULES,
    *latent_rules.RULES,
    *diffusion_pretrained_rules.RULES,
    *language.RULES,
    *pretrained_rules.RULES,
    *language_rules.RULES,
    *task_rules.RULES,
    *win_rules.RULES,
    *effect_rules(Spec, "spec"),
    *compute.RULES,
    *reserved.RULES,
    *recovery.RULES,
)


def check(given: Job, workers: int | None = None) -> list[Problem]:
    """Every rule that the job breaks, in the order of the rules. `workers` stands for spec.compute.workers (`gtj run --workers`)."""
    low, high = given.spec.compute.worker_range
    if workers is not None and low <= high:  # what is no range stays a mistake
        asked = given.spec.compute.model_copy(update={"workers": workers})
        given = given.model_copy(update={"spec": given.spec.model_copy(update={"compute": asked})})
    known: Known = {}
    return [problem for rule in RULES for problem in rule.problems(given, known)]


def check_profile(given: Profile) -> list[Problem]:
    """Every rule that the profile breaks, in the order of the rules."""
    known: Known = {}
    return [problem for rule in profile.RULES for problem in rule.problems(given, known)]
