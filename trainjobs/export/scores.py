"""What is exported of a model of rewards: what transformers' AutoModelForSequenceClassification loads, with one label, and of an adapter
what peft loads beside that.

Transformers reads the score at the last token that does not fill up. The token that fills up must therefore never end an answer: where the
tokenizer has none of its own, config.json names none, so that a batch of rows of unequal length is refused there, not read one token early.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Adapter
from trainjobs.data.pretrained import CONFIG, Pretrained
from trainjobs.export.huggingface import LABEL
from trainjobs.models.loading import ALONE

if TYPE_CHECKING:
    from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

SCORE, INSIDE = "score.weight", "base_model.model."


def configured(found: Pretrained, tokenizer: PretrainedTokenizer) -> dict[str, Any]:
    """What config.json says of a model of rewards that began as this base. JobError GTJ0109 where transformers has none of the kind."""
    told = found.json(CONFIG)
    pad = tokenizer.pad if tokenizer.pad not in tokenizer.ends else None
    return {**told, **LABEL, "architectures": [_class(told, found).__name__], "pad_token_id": pad}


def model(found: Pretrained, tokenizer: PretrainedTokenizer, *, weights: bool) -> Any:
    """The base with a score, which is random; without `weights` on no device."""
    import torch
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    told = configured(found, tokenizer)
    config, kind = CONFIG_MAPPING[told["model_type"]].from_dict(told), _class(told, found)
    if not weights:
        with torch.device("meta"):
            return kind(config)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn of the score
    logging.disable_progress_bar()
    try:
        with ALONE:
            return kind.from_pretrained(str(found.folder), config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    finally:
        logging.set_verbosity(before)


def filled(made: Any, trained: Mapping[str, Any]) -> None:
    """A peft model of `model` with an adapter, given what was trained: its own names stand inside, and the score is saved whole.
    JobError GTJ0208 where it is another adapter."""
    named = {f"{INSIDE}{name}": tensor for name, tensor in trained.items() if name != SCORE}
    named[f"{INSIDE}score.modules_to_save.default.weight"] = trained[SCORE]
    wanted = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    if wanted != set(named):
        differing = ", ".join(sorted(wanted ^ set(named))[:3])
        raise JobError("GTJ0208", "the checkpoint's adapter is another one", where="language.adapter", why=f"{differing} differ")
    made.load_state_dict(named, strict=False, assign=True)


def adapter_of(found: Pretrained, adapter: Adapter, tokenizer: PretrainedTokenizer, trained: Mapping[str, Any], *, weights: bool) -> Any:
    """What was trained beside a base, as peft has it."""
    from trainjobs.models.adapters import adapted

    made = adapted(model(found, tokenizer, weights=weights), adapter, tokenizer if adapter.train_tokens else None, "reward")
    filled(made, trained)
    return made


def _class(told: Mapping[str, Any], found: Pretrained) -> Any:
    from transformers import CONFIG_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    kind = told.get("model_type")
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(CONFIG_MAPPING[kind], None) if kind in CONFIG_MAPPING else None
    if known is None:
        why = f"transformers has no ...ForSequenceClassification of a {kind}"
        raise JobError("GTJ0109", "the model of rewards cannot be exported", where=str(Path(found.uri)), why=why, how="take another base")
    return known[0] if isinstance(known, (tuple, list)) else known
