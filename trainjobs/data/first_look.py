"""What the data is, in a line, before anything is started. No torch here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import dialogues, documents
from trainjobs.data.chat_template import Missing, template_of
from trainjobs.data.dataset import Dataset, Reading, encoded, open_dataset, uses
from trainjobs.data.encoding import Encoder, encode
from trainjobs.data.files import megabytes
from trainjobs.data.formats import COLUMN, SHAPES
from trainjobs.data.forms.glance import glance
from trainjobs.data.forms.recognise import form_of
from trainjobs.data.forms.records import Record
from trainjobs.data.forms.roles import roles
from trainjobs.data.found import Found, look, wants
from trainjobs.data.images import describe, read
from trainjobs.data.pictures import Seen
from trainjobs.data.places.open import BEFORE
from trainjobs.data.places.straight import Straight
from trainjobs.data.prepared import line, prepared
from trainjobs.data.pretrained_tokenizer import pretrained_tokenizer
from trainjobs.data.source import divide
from trainjobs.data.tokens import ByteTokenizer, train_bpe
from trainjobs.stores.patience import Patience

CHECKED = 256  # pictures of a folder on this machine that are decoded, evenly spread
ELSEWHERE = 16  # of a folder in a bucket
READ = 64_000_000  # characters of text that are read, of what is on this machine
PLENTY = 64  # sequences of characters that make enough tokens; repetitive text might not, and fails when it is opened


def said(spec: Spec) -> str:
    """The line. JobErrors as of trainjobs.data.preflight."""
    patience = Patience(BEFORE)
    parts = [_said(spec, one, patience) for one in look(spec, {}, patience)]
    if len(parts) == 1:
        return parts[0]
    total = sum(part.weight for part in spec.data.parts)
    return "; ".join(f"{part.weight / total:.0%} {part.source}: {words}" for part, words in zip(spec.data.parts, parts, strict=True))


def _said(spec: Spec, found: Found, patience: Patience) -> str:
    if (made := prepared(spec, found)) is not None and made.kind == "tokens":
        return line(made)
    place, listed = found.place(patience), found.train
    local = all(one.path is not None for one in listed.objects[:1])
    asked = wants(spec, listed)
    forms = {form_of(one.name) for one in listed.objects if one.size}
    if local and (forms <= {"jsonl", "text", None} or (asked == "text" and "images" not in forms)):
        return _of_text(spec, found)
    told = glance(place, listed, spec.data, Straight(), wants=asked)
    kind, used = uses(spec, roles(told.columns, spec.data.columns, spec.data.text.field, spec.learner))
    seen, notes, bad = Seen(), [*found.words], list[JobError]()
    first, *rest = told.words()
    if kind == "image":
        looked = 0
        for record in _pictures(spec, found) if told.form == "images" else told.head:
            looked += 1
            try:
                seen.add(record.where, read(encoded(record, used["image"]), spec.data.images.size, spec.data.images.channels, record.where))
            except JobError as error:
                if spec.data.on_bad_sample == "fail" or error.code != "GTJ0113":
                    raise
                bad.append(error)
        if bad and len(bad) == looked:
            raise bad[0]
        if bad:
            notes.append(f"{len(bad)} of {looked} looked at cannot be read, the first of them {bad[0].where}")
        if told.form == "images" or looked == told.samples:  # a few of a shard may well be alike
            seen.end(place.uri)
        if told.exact and found.held is None:
            divide(told.samples, spec.data.holdout, place.uri, "image")
        if told.form == "images" and not told.columns.keys() - {"image", "folder"}:
            first = f"{told.samples} image{'s' if told.samples > 1 else ''}"
        first += f", {describe(spec.data.images)}"
        if any(seen.words()) and looked < told.samples:
            notes.append(f"of {looked} looked at")
        notes += seen.words()
    others = {role: column for role, column in used.items() if role not in ("image", "text") or column != role}
    if others and not (kind == "image" and told.form == "images" and others == {"image": "image"}):
        notes.insert(0, ", ".join(f"{role}: {column}" for role, column in others.items()))
    return "; ".join([first, *notes, *rest])


def _pictures(spec: Spec, found: Found) -> Iterator[Record]:
    """Pictures of a folder, evenly spread."""
    dataset = _opened(spec, found)
    rows = [(block, row) for block, there in enumerate(dataset.records.blocks) for row in range(there.rows)]
    step = -(-len(rows) // (CHECKED if dataset.local else ELSEWHERE))
    for block, row in rows[::step]:
        yield dataset.records.read(Straight(), block, [row], [dataset.roles["image"]])[0]


def _of_text(spec: Spec, found: Found) -> str:
    """Text on this machine is read, up to READ characters of it."""
    dataset = _opened(spec, found)
    if dataset.kind == "exchange" or documents.by_document(spec):
        return _of_records(spec, found, dataset)
    context = documents.settings(spec).network.context_length
    count, length, kept, plenty = 0, 0, list[str](), PLENTY * (2 * context + 1)
    for _, text, _ in documents.of(dataset, Straight()).read():
        count += 1
        length += len(text)
        if length <= plenty:
            kept.append(text)
        if length > READ:
            break
    if length <= plenty:
        tokenizer = documents.settings(spec).tokenizer
        encode = (ByteTokenizer() if tokenizer.type == "byte" else train_bpe(kept, tokenizer.vocabulary_size)).encode
        documents.enough(sum(len(encode(text)) + 1 for text in kept), context, spec.data)
    line = documents.said(dataset.size, len(dataset.objects), count, " or more" if length > READ else "")
    return "; ".join([line, *found.words, *list(dataset.records.words())[1:]])


def _of_records(spec: Spec, found: Found, dataset: Dataset) -> str:
    """Records on this machine are read, up to READ bytes of them, and each is looked at as it will be when it is encoded."""
    part, language = dialogues.of(spec, dataset, Straight()), documents.settings(spec)
    if part.form == "chat" and language.base is not None and language.template is None and language.base.source.startswith("file://"):
        with tempfile.TemporaryDirectory(prefix="gtj-") as folder:
            template = template_of(pretrained_tokenizer(language.base, Path(folder)))
        if isinstance(template, Missing):
            raise template.error
    tokenizer = ByteTokenizer()  # which tokens there are has no say in whether a record is of the format
    one = encode(Encoder(tokenizer, template_of(tokenizer), documents.settings(spec).loss.tokens), part.form)
    count = length = 0
    for _, where, values, _ in part.read():
        count, length = count + 1, length + sum(len(tokens) for tokens, _ in one(values, where))
        if length > READ:
            break
    if not count:
        raise JobError("GTJ0113", "there is no record", where=found.uri, how="name other data, or another split in data.split")
    roles = ", ".join(f"{role}: {column}" for role, column in dataset.roles.items() if not role.startswith(COLUMN) and role != column)
    line = f"{count:,}{' or more' if length > READ else ''} records of {SHAPES[part.form].words}{f' ({roles})' if roles else ''}"
    return "; ".join([f"{line}, {megabytes(dataset.size)}", *found.words, *list(dataset.records.words())[1:]])


def _opened(spec: Spec, found: Found) -> Dataset:
    with tempfile.TemporaryDirectory(prefix="gtj-") as folder:
        dataset = open_dataset(spec, found, Reading(Path(folder)), Straight())
    return replace(dataset, bad=dataset.bad and replace(dataset.bad, path=None))
