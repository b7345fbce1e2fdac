"""A language model's records, opened: encoded, and made into a source of batches."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.data.answers import open_answers
from trainjobs.data.chat_template import Missing, template_of
from trainjobs.data.dialogues import Dialogues
from trainjobs.data.documents import settings
from trainjobs.data.encoding import Encoder
from trainjobs.data.files import fingerprinted
from trainjobs.data.formats import TWO
from trainjobs.data.job_template import unused
from trainjobs.data.masked import open_masked
from trainjobs.data.preferences import open_preferences, open_prompts
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.sequences import Sequences, path_of, sequences
from trainjobs.data.source import DataInfo, Source
from trainjobs.data.spans import longest, open_spans
from trainjobs.data.text import of_base
from trainjobs.data.tokens import Tokenizer, open_tokenizer, read_tokenizer
from trainjobs.data.translations import open_translations

_VERSION = 1


def open_dialogues(spec: Spec, parts: Sequence[Dialogues], cache: Path, trained: bytes | PretrainedTokenizer | None = None) -> list[Source]:
    """A source for each, with one tokenizer; `trained` is that of a base, or of a run that goes on. JobErrors as of `sequences`."""
    language = settings(spec)
    if language.base is not None:
        own = of_base(language, cache, trained)
        known: list[object] = ["base", own.base.digest, *(["template", own.template] if own.template is not None else [])]
        return [_open(spec, language, part, own, known, cache) for part in parts]
    assert not isinstance(trained, PretrainedTokenizer)
    kind, size = language.tokenizer.type, language.tokenizer.vocabulary_size
    asked: list[object] = [kind, size] if kind == "bpe" else [kind]
    if kind == "bpe" and trained is not None:
        tokenizer, asked = read_tokenizer(trained), [kind, hashlib.sha256(trained).hexdigest()]
    else:
        name = fingerprinted([part.key for part in parts], version=_VERSION, dialogues=asked)
        every = (text for part in parts for text in part.texts())
        tokenizer = open_tokenizer(language.tokenizer, every, cache / f"tokenizer-{name}.json")
    return [_open(spec, language, part, tokenizer, asked, cache) for part in parts]


def _open(spec: Spec, language: Language, part: Dialogues, tokenizer: Tokenizer, asked: list[object], cache: Path) -> Source:
    context = language.network.context_length
    info = DataInfo("text", (context,), 1, 0, tokenizer.vocabulary, tokenizer, form=part.form)
    found = encoded(spec, part, tokenizer, asked, cache)
    if part.form == "preference":
        return open_preferences(found, info, tokenizer.end)
    if part.form == "prompts":
        return open_prompts(found, info, language.completions, tokenizer.end)
    if isinstance(tokenizer, PretrainedTokenizer) and language.span_corruption is not None:
        return open_spans(found, info, tokenizer, language.span_corruption)
    if isinstance(tokenizer, PretrainedTokenizer) and language.task == "masked":
        return open_masked(found, info, tokenizer.pad)
    if isinstance(tokenizer, PretrainedTokenizer) and language.task == "seq2seq":
        return open_translations(found, info, tokenizer.pad, tokenizer.decoder_start)
    packing = "bfd" if language.packing == "auto" else language.packing
    return open_answers(found, info, packing, tokenizer.end, part.where)


def encoded(spec: Spec, part: Dialogues, tokenizer: Tokenizer, asked: list[object], cache: Path) -> Sequences:
    """The records' sequences, kept in `cache`; what was left out is said."""
    language = settings(spec)
    room = language.network.context_length + 1
    if language.packing == "wrapped":
        room = 2**31  # what is longer than a context is cut there
    if part.form in ("masked", *TWO):
        room -= 1  # all tokens pass a network: the last one for its reward, or because nothing is predicted from those before it alone
    if language.span_corruption is not None:
        room = longest(room - 1, len(tokenizer.before), language.span_corruption)
    if language.rewarded:
        room -= 1 + language.rewarded.max_completion
    on, holdout = language.loss.tokens, None if part.apart else spec.data.holdout
    judged = language.rewarded is not None and any(one.source is not None for one in language.rewarded.rewards)
    carried = {"messages": True} if judged else {}  # files of jobs without keep their names
    path = path_of(cache, part.key, part.form, asked, on=on, room=room, holdout=holdout, **carried)
    encoder = Encoder(tokenizer, template_of(tokenizer), on, room)
    if part.form == "text":
        unused(language, "plain text")
    if isinstance(encoder.template, Missing) and part.form == "chat":
        raise encoder.template.error
    made = sequences(part.read(), part.form, encoder, room, part.where, holdout, path, messages=judged)
    for words in made.counts.words(room - 1 if part.form in ("text", "pair", "chat") else room):
        logging.getLogger(__name__).warning("%s: %s", part.where, words)
    return made
