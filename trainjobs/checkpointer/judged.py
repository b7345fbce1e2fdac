"""Which trained models a job's completions are valued by, and a look whether they are there. torch is not imported."""

from __future__ import annotations

from trainjobs.api.alignment import RewardFunction
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.pretrained import Base
from trainjobs.checkpoints import Checkpoints, Commit, locate
from trainjobs.data.pretrained import look, unusable


def sources(spec: Spec) -> list[tuple[int, RewardFunction]]:
    """The models of rewards of a job, by their number among its rewards."""
    asked = spec.language.rewarded.rewards if spec.language and spec.language.rewarded else []
    return [(number, one) for number, one in enumerate(asked) if one.source is not None]


def preflight(spec: Spec) -> None:
    """See that each is there, cheaply: nothing is fetched. JobError GTJ0118, GTJ0109."""
    for number, one in sources(spec):
        assert one.source is not None
        field = field_of(spec, number)
        if checkpoint_of(one.source, field) is None:
            try:
                look(Base(source=one.source))
            except JobError as error:
                raise told(error, field) from error


def checkpoint_of(source: str, field: str) -> tuple[Checkpoints, Commit] | None:
    """None where no run has saved anything. JobError GTJ0109 for a run that learned something else."""
    if source.startswith("hf://"):
        return None
    try:
        checkpoints, commit = locate(source.rstrip("/"))
    except JobError as error:
        if error.code != "GTJ0118":
            raise
        return None
    language = commit.metadata.get("spec", {}).get("language") or {}
    if language.get("method") != "reward":
        why = f"its run had language.method: {language['method']}" if language.get("method") else "its run trained another family"
        raise unusable("the checkpoint is of no model of rewards", f"{field}: {source}", why, "name one of a run with method: reward")
    return checkpoints, commit


def field_of(spec: Spec, number: int) -> str:
    assert spec.language is not None
    return f"language.{spec.language.method}.rewards[{number}].source"


def told(error: JobError, field: str) -> JobError:
    """The same, said of the reward model."""
    what, why = (words.replace("the base", "the reward model") for words in (error.what, error.why))
    where = error.where if field in error.where else f"{field}: {error.where}"
    return JobError(error.code, what, where=where, why=why, how=error.how.replace("language.base.source", field))
