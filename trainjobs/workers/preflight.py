"""A look at the base or the autoencoder, the data and the store, before anything heavy starts. torch is not imported."""

from __future__ import annotations

from pathlib import Path

from trainjobs import data
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.checkpointer import judged
from trainjobs.checkpointer.identity import store_uri
from trainjobs.checkpoints import Checkpoints, open_store
from trainjobs.data import job_template, pretrained
from trainjobs.data.places.open import BEFORE
from trainjobs.export import companion
from trainjobs.run import progress
from trainjobs.stores.objects import Patience


def preflight(job: Job, run: Path, *, patience: float = 20.0) -> None:
    """What can be found wrong before anything heavy starts: the base, its chat template and the teacher, the
    autoencoder, the data, the store. `patience`: seconds for a store that does not answer. Raises JobError."""
    for base in (pretrained.base_of(job.spec), job.spec.language.distill.teacher if job.spec.language else None):
        if base is not None:
            pretrained.look(base)
    if job.spec.language is not None and job.spec.language.template is not None:
        job_template.text_of(job.spec.language.template, BEFORE)
    judged.preflight(job.spec)
    if job.spec.diffusion is not None and job.spec.diffusion.latents is not None:
        companion.pinned(job.spec.diffusion.latents.autoencoder)
    progress.update(run, data=data.preflight(job.spec))
    # Nothing is lost yet: a wrong endpoint shall be told soon, not after as long as a checkpoint would be worth.
    try:
        Checkpoints(open_store(store_uri(job, run), patience=Patience(patience)), keep=job.spec.checkpoints.keep).probe()
    except JobError as error:
        if getattr(error.__cause__, "reason", "") != "failed":
            raise
        # No answer is no refusal: it may be another the next time.
        raise JobError("GTJ0211", error.what, where=error.where, why=error.why, how=error.how) from error
