"""The chat template of a job, in what is exported of the model: whoever loads it writes conversations as it has learned them, and stops
where its answers end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainjobs.api.language import Language
from trainjobs.data.chat_template import FILE, own
from trainjobs.data.job_template import ending, templated
from trainjobs.data.pretrained import CONFIG, Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer, read
from trainjobs.export.huggingface import text


def carry(folder: Path, found: Pretrained, template: str, language: Language, names: Sequence[str]) -> None:
    """Put it into `folder`, and beside it those files of the base's tokenizer, of these `names`, that are not there: an adapter is of no
    use with another. Where an answer ends with another token than the base's texts, that is the end of text from now on; but a template
    that has words for the base's own (eos_token) keeps it, and generation alone is told."""
    assert language.template is not None
    for name in names:
        if name in found.files and not (folder / name).exists():
            shutil.copyfile(found.folder / name, folder / name)
    (folder / FILE).write_text(template, encoding="utf-8")
    before, now = read(found), templated(read(found), template, language.template)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            told: dict[str, Any] = json.loads((folder / name).read_bytes())
            told.pop("chat_template", None)
            if now.end != before.end and "eos_token" not in template and "eos_token" in told:
                told["eos_token"] = now.inner.id_to_token(now.end)
            (folder / name).write_bytes(text(told))
    _stopping(folder, now, language)


def stops(folder: Path, found: Pretrained, language: Language) -> None:
    """See that a model of a base with a chat template of its own is drawn from by others up to where the run's samples ended."""
    if own(found) is not None:
        _stopping(folder, ending(read(found)), language)


def _stopping(folder: Path, tokenizer: PretrainedTokenizer, language: Language) -> None:
    """Put the tokens at which it is over into generation_config.json, where there is a whole model that generates."""
    if (folder / CONFIG).exists() and language.method != "reward":
        name = "generation_config.json"
        told = json.loads((folder / name).read_bytes()) if (folder / name).exists() else {}
        (folder / name).write_bytes(text({**told, "eos_token_id": list(tokenizer.ends)}))
