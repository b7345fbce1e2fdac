"""Pictures with captions, for a model that writes them: a batch of pictures whose captions have become what a decoder reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trainjobs.api.errors import JobError, printable
from trainjobs.api.job import Spec
from trainjobs.data.captions import NOTHING
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.source import Source
from trainjobs.data.text import of_base
from trainjobs.data.translations import written


def described(source: Source, spec: Spec, cache: Path, trained: bytes | PretrainedTokenizer | None) -> Source:
    """The source, whose `info` knows the tokenizer of the base that writes captions; of other jobs, as it is."""
    if spec.language is None or spec.language.base is None or spec.reads_text:
        return source
    own = of_base(spec.language, cache, trained)
    pictures: Any = source
    told: Source = replace(pictures, info=replace(source.info, tokenizer=own, vocabulary=own.vocabulary))
    return told


@dataclass(frozen=True)
class Captions:
    """Of a batch {"image", "caption"}: {"image", "tokens", "labels"} (see translations.py), on its device. Captions have `room` tokens at
    most."""

    tokenizer: PretrainedTokenizer
    room: int

    def __call__(self, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """JobError GTJ0113 for a caption that is too long."""
        if "caption" not in rows:
            return rows
        own, targets = self.tokenizer, []
        for row in rows["caption"].tolist():
            text = bytes(token for token in row if token < NOTHING).decode(errors="replace")
            tokens = [*own.before, *own.encode(text), own.end]
            if len(tokens) > self.room:
                why = f'"{printable(text[:60])}" has {len(tokens)}'
                how = "raise language.network.contextLength, or shorten the caption"
                raise JobError("GTJ0113", f"a caption is longer than {self.room} tokens", where="data.source", why=why, how=how)
            targets.append(np.array(tokens, np.int64))
        made = written(targets, own.decoder_start, own.end)
        return {"image": rows["image"], **{name: value.to(rows["image"].device) for name, value in made.items()}}
