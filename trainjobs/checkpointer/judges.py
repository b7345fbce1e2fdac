"""Trained models of rewards that completions are valued by: language.grpo.rewards and language.ppo.rewards with a `source`.

A source is a folder of transformers' ...ForSequenceClassification with one label, a model of the hub, or a checkpoint of a run that had
`method: reward`, which is exported into the cache, once for all processes of a machine. They are frozen and in no checkpoint. The digests
of their files are in every commit, and a run goes on only with the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.pretrained import Base
from trainjobs.api.uris import file_uri
from trainjobs.checkpointer.judged import checkpoint_of, field_of, sources, told
from trainjobs.data.chat_template import template_of
from trainjobs.data.encoding import Encoder
from trainjobs.data.pretrained import Pretrained, alone, opened, together, unusable
from trainjobs.data.pretrained_tokenizer import read
from trainjobs.export.export import export
from trainjobs.objectives.language.grpo import GrpoObjective
from trainjobs.objectives.language.judging import Judge
from trainjobs.objectives.language.ppo import PpoObjective
from trainjobs.objectives.language.preference import Scored
from trainjobs.objectives.phase import Model, Network
from trainjobs.world import World

FOLDER = "rewards"  # of the cache
HOW = "put its chat_template.jinja beside the reward model, or train it with language.template"


def with_judges(model: Model, spec: Spec, world: World, scratch: Path) -> Model:
    """The model, and those that value what it writes. Every rank must call it; all raise the same. JobErrors of `opened`, told of the
    reward model; GTJ0109 for one that is none."""
    objective, asked = model.objective, sources(spec)
    if not asked or not isinstance(objective, GrpoObjective | PpoObjective):
        return model
    networks, judges = dict(model.networks), list[tuple[float, Judge]]()
    for number, one in asked:
        assert one.source is not None
        field, name = field_of(spec, number), f"reward{number}"
        found = _opened(one.source, field, scratch / "cache", world)
        judge = _judge(found, field, half=spec.training.precision == "bf16")
        networks[name] = Network(judge.network, {}, averaged=False, origin=found.digest)
        judges.append((one.weight, judge))
    return replace(model, networks=networks, objective=replace(objective, rewards=replace(objective.rewards, judges=tuple(judges))))


def _opened(source: str, field: str, cache: Path, world: World) -> Pretrained:
    try:
        folders = together(world, lambda: _folder(source, field, cache))
        found = opened(Base(source=folders[world.rank]), cache, world)
    except JobError as error:
        raise told(error, field) from error
    assert found is not None
    return found


def _folder(source: str, field: str, cache: Path) -> str:
    """The URI of a folder as transformers writes it. Of a checkpoint it is written here, where it does not exist."""
    found = checkpoint_of(source, field)
    if found is None:
        return source
    checkpoints, commit = found
    folder = cache / FOLDER / commit.manifest_digest.rpartition(":")[2][:24]
    with alone(cache / FOLDER, "the reward model"):
        if not folder.exists():
            language = commit.metadata["spec"]["language"]
            export(checkpoints, commit, folder, weights=None, dtype="fp32", merge=language.get("adapter") is not None)
    return file_uri(str(folder.absolute()))


def _judge(found: Pretrained, field: str, *, half: bool) -> Judge:
    from trainjobs.models.pretrained import load

    try:
        tokenizer, classifier = read(found), load(found, half=half, context=1, task="reward")
    except JobError as error:
        raise told(error, field) from error
    score, config = getattr(classifier, "score", None), classifier.config
    labels = int(config.num_labels)  # type: ignore[union-attr, arg-type]
    if score is None or labels != 1:
        why = f"it has {labels} labels" if score is not None else f"a {type(classifier).__name__} reads no score at the last token"
        how = "take a decoder's ...ForSequenceClassification that was trained with num_labels=1"
        raise unusable("the model gives no score", f"{field}: {found.uri}", why, how)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator, union-attr]
    network = Scored(classifier, score).requires_grad_(False).eval()
    return Judge(network, Encoder(tokenizer, template_of(tokenizer, HOW)), tokenizer, longest, found.source, field.rpartition(".")[0])
