"""What a run that goes on began with, looked at before anything is built: its data, its tokenizer, and what else was another one.

A checkpoint fits a network as long as the tensors have the same shapes, and says nothing of what they were trained on. So each commit
carries an account of all that has a part in the result, and whoever goes on from it compares: of the data a difference is refused, unless
the manifest allows it; of everything else it is told, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.shape import element, fields, model_of
from trainjobs.checkpoints import Checkpoints, Corrupt, locate, open_store
from trainjobs.data import origin
from trainjobs.data.chat_template import FILE as TEMPLATE
from trainjobs.data.holdout import Rule
from trainjobs.data.job_template import compare, ending, text_of, tokenizer_of
from trainjobs.data.origin import Origin
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.tokens import TRAINED
from trainjobs.world import World

# What has no part in the result of a run that goes on: where it runs, how long it may, who pays. That it does not go on, because
# checkpoints.uri or resumeFrom say so, is told as the run starts.
WITHOUT_EFFECT = (
    *("pod", "budget", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "preflight"),
    *("compute.profiles", "compute.queue", "compute.queueElastic", "recovery.maxRetries", "recovery.stallTimeout"),
    *("checkpoints.uri", "checkpoints.every", "checkpoints.resumeFrom", "checkpoints.allowDataChange", "checkpoints.allowOptimizerReset"),
    *("data.cache", "data.workers"),  # how much disk and how many threads: order and samples are the same
    "diffusion.latents.cache",  # when pictures are encoded: the latents are the same
    *("checkpoints.keep.last", "checkpoints.keep.everySteps", "checkpoints.keep.pinned"),  # keep.best has its metric measured
)

# What versions before wrote down for fields that now say by not being there that they are as they were.
LEFT_OUT = {"vae.loss.beta": 1.0}


@dataclass(frozen=True)
class Before:
    """Of the checkpoint that the run goes on from; empty for a run that begins. `files` are its small ones, by name."""

    step: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def rule(self) -> Rule | None:
        """How it held samples out; None for a run that begins. Before there was a choice, by place."""
        if not self.metadata:
            return None
        found: Rule = self.metadata.get("data", {}).get("rule", "place")
        return found

    @property
    def resolved(self) -> Mapping[str, str]:
        """What URIs of the manifest meant when it began."""
        found: Mapping[str, str] = self.metadata.get("data", {}).get("resolved", {})
        return found

    @property
    def orders(self) -> Sequence[Mapping[str, Any]]:
        """In which order it saw each source."""
        found: Sequence[Mapping[str, Any]] = self.metadata.get("data", {}).get("orders", ())
        return found

    @property
    def base(self) -> Mapping[str, Any] | None:
        """The trained model that it began with (data/pretrained.py)."""
        return self.metadata.get("base")

    @property
    def tokenizer(self) -> bytes | None:
        return self.files.get(TRAINED)


def look(uri: str, spec: Spec, since: float) -> Before:
    """The newest checkpoint at `uri`, or the one that the manifest resumes from: as the restorer will choose, but nothing is verified, and
    where nothing can be found the restorer will say so."""
    with contextlib.suppress(JobError):
        checkpoints, source = Checkpoints(open_store(uri), keep=spec.checkpoints.keep), spec.checkpoints.resume_from
        commit = checkpoints.newest()
        if commit is None or (source != "latest" and commit.committed_at < since):
            if source in ("latest", "none"):
                return Before()
            checkpoints, commit = locate(source)
        files = {}
        for name in (TRAINED, TEMPLATE, origin.NAME):
            with contextlib.suppress(Corrupt, KeyError, StopIteration):
                files[name] = checkpoints.read(commit, 0, name)
        return Before(commit.step, commit.metadata, files)
    return Before()


def tokenizer(before: Before, spec: Spec, base: Pretrained | None, world: World) -> bytes | PretrainedTokenizer | None:
    """That of the base with the job's chat template, which is read once for all ranks; else that which was trained when the run began.
    Every rank must call it. JobError GTJ0208 where the template is another one than it was, and those of `tokenizer_of`."""
    language = spec.language
    if base is None or language is None:
        return before.tokenizer
    text = world.lead(text_of, language.template) if language.template is not None else None
    if before.metadata:
        compare(before.files.get(TEMPLATE), text)
    return ending(tokenizer_of(language, base, text))


def compare_data(before: Before, now: Origin, spec: Spec) -> str | None:
    """What has changed of the data, in words; None when nothing has, or it cannot be told. JobError GTJ0216 unless that is allowed."""
    account = before.metadata.get("data")
    what = origin.difference(account, now, lambda: before.files.get(origin.NAME)) if account else None
    if what is not None and not spec.checkpoints.allow_data_change:
        raise origin.refuse(before.step, what, "data.sources" if spec.data.sources else "data.source")
    return what


def account(spec: Spec, data: Origin, rule: Rule, orders: Sequence[Mapping[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """What a commit keeps, for `changes`, `compare_data` and onward.py: the job, the data, and what is not in the manifest."""
    return {"job": dict(_leaves(spec)), "data": {**data.metadata(), "rule": rule, "orders": list(orders)}, "around": more}


def changes(before: Before, identity: Mapping[str, Any]) -> list[str]:
    """Everything that had another value when the checkpoint was taken: the manifest's fields, then what is around it. `identity` is what
    the saver keeps now."""
    lines = []
    if "around" not in before.metadata:
        return []  # a checkpoint of before such accounts were kept
    for part in ("job", "around", "versions"):
        old, new = before.metadata[part], identity[part]
        for name in dict.fromkeys([*old, *new]):
            if part == "versions" and name not in old:
                continue  # nobody wrote it down then
            if part == "job" and name not in new and name in LEFT_OUT and old[name] == LEFT_OUT[name]:
                continue
            if old.get(name) != new.get(name) and not (part == "job" and _was_not_there(name, old, new)):
                lines.append(f"{name} {_shown(old.get(name))} -> {_shown(new.get(name))}")
    return lines


@contextlib.contextmanager
def named(others: Sequence[str]) -> Iterator[None]:
    """A checkpoint that does not fit (GTJ0208) is refused with the names of what has changed since: of tensors alone nobody reads which
    field of the manifest made them. `others` are the `changes`."""
    try:
        yield
    except JobError as error:
        if error.code != "GTJ0208" or not others:
            raise
        why = f"{error.why}; changed since: {', '.join(others)}"
        raise JobError(error.code, error.what, where=error.where, why=why, how=error.how) from error


def _leaves(spec: Spec) -> Iterator[tuple[str, Any]]:
    """The manifest's fields with their values, dotted, but for those without effect."""

    def walk(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if path in WITHOUT_EFFECT:
            return
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield from walk(f"{path}.{key}" if path else key, inner)
        elif value is not None:
            yield path, _digest(value) if path.startswith("custom.options") else value

    yield from walk("", spec.model_dump(mode="json", by_alias=True))


def _was_not_there(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a field is new since the checkpoint was taken and has its default, which is what versions before it did. A field that is new
    because a part that may be left out, or an entry of a map, is there now, is another thing."""
    if name in old:
        return False
    annotation: Any = Spec
    default: Any = None
    keys = name.split(".")
    for depth, key in enumerate(keys, 1):
        at = ".".join(keys[:depth])
        model = model_of(annotation)
        info = fields(model).get(key) if model else None
        annotation, default = (info.annotation, info.get_default(call_default_factory=True)) if info else (element(annotation), None)
        if default is None and not any(other == at or other.startswith(f"{at}.") for other in old):
            return False
    return bool(new[name] == default)


def _digest(value: Any) -> str:
    """Options of users' own code may hold anything, and who reads checkpoints need not know them."""
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]}"


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)[:64]
