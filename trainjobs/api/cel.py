"""The rules that an API server checks: those of `rules.py`, and what only a server knows, which is the object as it was."""

from __future__ import annotations

from trainjobs.api import profile, rules
from trainjobs.api.data import Data
from trainjobs.api.job import FAMILIES
from trainjobs.api.rule import Rule
from trainjobs.api.shape import fields

_NOT_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.attempts) || oldSelf.status.attempts == 0"


_DATA = tuple(f"data.{name}" for name in fields(Data) if name not in ("cache", "workers"))  # these change no sample


def _same(field: str) -> str:
    return f"(has(self.{field}) ? has(oldSelf.{field}) && self.{field} == oldSelf.{field} : !has(oldSelf.{field}))"


RULES = (
    *(rule for rule in rules.RULES if rule.cel),
    *(
        Rule(
            "",
            "GTJ0108",
            None,
            f"{_NOT_STARTED} || {_same(f'spec.{field}')}",
            f"spec.{field} cannot change once the job has started",
            field=f"spec.{field}",  # at the root the server would name "<nil>"
        )
        for field in (*FAMILIES, *_DATA, "training.seed", "training.batch.global", "compute.queue")
    ),
)

PROFILE_RULES = tuple(rule for rule in profile.RULES if rule.cel)
