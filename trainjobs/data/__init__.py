"""The data of a job: where it comes from, in which order it is seen, what a batch is.

    found = look(spec)                                # where it is, and which of its objects count; one process asks
    source = open_source(spec, cache, found)
    batch = source.batch(positions, seed, noise)      # {"image": ...}, {"point": ...} or {"tokens": ...}

Importing this package and calling `preflight` imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.source import DataInfo as DataInfo
from trainjobs.data.source import Source as Source
from trainjobs.data.tokens import Tokenizer as Tokenizer

if TYPE_CHECKING:
    from trainjobs.data.dataset import Dataset, Reading
    from trainjobs.data.formats import Format
    from trainjobs.data.found import Found
    from trainjobs.data.holdout import Rule
    from trainjobs.data.origin import Origin
    from trainjobs.data.places.place import Ranks
    from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

_BUILTIN: dict[str, Literal["image", "point", "text"]] = {
    "builtin:digits": "image",
    "builtin:shapes": "image",
    "builtin:ring": "point",
    "builtin:stdlib-text": "text",
    "builtin:stdlib-pairs": "text",
    "builtin:stdlib-chat": "text",
    "builtin:stdlib-preferences": "text",
}


def look(spec: Spec, resolved: Mapping[str, str] | None = None) -> tuple[Found, ...]:
    """The sources of a job, looked at; none where it is built in. A run that goes on gives the URIs as it began with them, `resolved`.

    JobErrors as of `preflight`; GTJ0219 where a store does not answer.
    """
    from trainjobs.data import found

    _of_builtin(spec)
    return () if spec.data.uri.startswith("builtin:") else found.look(spec, resolved or {})


def open_source(
    spec: Spec,
    cache: Path,
    found: Sequence[Found] | None = None,
    *,
    rule: Rule | None = None,
    tokenizer: bytes | PretrainedTokenizer | None = None,
    orders: Sequence[Mapping[str, Any]] = (),
    ranks: Ranks | None = None,
    aside: Path | None = None,
    pin: bool = False,
    say: Callable[[str], None] = lambda words: None,
    note: Callable[[Dataset], None] = lambda dataset: None,
) -> Source:
    """The data of a job. `cache` is a folder for what is fetched and derived, which may be shared and may not exist yet; `aside` the one in
    which samples that cannot be read are named. Of several ranks every one calls this alike. A run that goes on gives what it began
    with: the `rule` by which samples are held out, its trained `tokenizer` (or that of a base), the `orders` of its sources.
    `note` is told each data set that was opened for it.

    JobError GTJ0107, GTJ0108, GTJ0112, GTJ0113, GTJ0219 (see `preflight`), and GTJ0114 when `cache` cannot be written, or is too small.
    """
    from trainjobs.data import captioned, conditions, dialogues, digits, documents, encoded_dialogues, pixels, ring, text
    from trainjobs.data.dataset import Reading
    from trainjobs.data.places.place import ALONE

    data, held_out = spec.data, rule or rule_of(spec)
    if (kind := _of_builtin(spec)) is not None:
        if kind == "text" and data.uri != "builtin:stdlib-text":
            part = dialogues.of_builtin(spec, data.uri.removeprefix("builtin:"))
            return encoded_dialogues.open_dialogues(spec, [part], cache, tokenizer)[0]
        if kind == "text" and documents.by_document(spec):
            form: Format = documents.form_of(spec)
            part = dialogues.Dialogues(documents.stdlib().key, data.uri, form, documents.stdlib_records)
            return encoded_dialogues.open_dialogues(spec, [part], cache, tokenizer)[0]
        if kind == "text":
            return text.open_texts(spec, [documents.stdlib()], cache, held_out, tokenizer)[0]
        if kind == "point":
            return ring.open_ring(data)
        if data.uri == "builtin:digits":
            return pixels.ImageSource.of(pixels.readonly(digits.load(data.images.size)), data, conditions.of_builtin(spec))
        return captioned.described(pixels.open_shapes(data, cache, conditions.of_builtin(spec)), spec, cache, tokenizer)
    batch = spec.training.batch
    reading = Reading(cache, held_out, tuple(orders), ranks or ALONE, pin, aside, batch.micro or batch.global_, say)
    return _opened(spec, found if found is not None else look(spec), reading, tokenizer, note)


def _opened(
    spec: Spec,
    found: Sequence[Found],
    reading: Reading,
    tokenizer: bytes | PretrainedTokenizer | None,
    note: Callable[[Dataset], None] = lambda dataset: None,
) -> Source:
    from trainjobs.data import captioned, dialogues, documents, encoded_dialogues, exchanges, prepared, tables, text, wanted
    from trainjobs.data.dataset import open_dataset
    from trainjobs.data.mixed import Mixed
    from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

    shelf = reading.shelf(spec.data, derived=True)
    ahead = [(prepared.prepared(spec, one), one) for one in found]
    sources: list[Source] = []
    if spec.reads_text and any(made for made, _ in ahead):
        if documents.by_document(spec):
            why, how = (
                "what was prepared is one stream of tokens",
                "take packing and loss.tokens out, or name the data itself",
            )
            raise JobError("GTJ0108", "prepared text cannot be read by document", where="language.packing", why=why, how=how)
        if spec.language is not None and spec.language.base is not None:
            own = text.of_base(spec.language, reading.cache, tokenizer)
            prepared.together(ahead, own.file)
            tokenizer = own
        else:
            assert not isinstance(tokenizer, PretrainedTokenizer)
            tokenizer = prepared.together(ahead, tokenizer)
        ready = [prepared.of_tokens(made, one, shelf) for made, one in ahead if made]
        sources += text.open_texts(spec, ready, reading.cache, reading.rule, tokenizer, reading.derived(spec.data, found))
        return Mixed.of_parts(sources, found)
    datasets = [open_dataset(spec, one, reading, shelf) for one in found]
    if spec.reads_text and (documents.by_document(spec) or any(dataset.kind == "exchange" for dataset in datasets)):
        parts = [dialogues.of(spec, dataset, shelf) for dataset in datasets]
        sources += encoded_dialogues.open_dialogues(spec, parts, reading.cache, tokenizer)
        return Mixed.of_parts(sources, found)
    kinds = {dataset.kind for dataset in datasets}
    if len(kinds) > 1:
        what = f"one source holds {datasets[0].kind}s, another {next(one.kind for one in datasets if one.kind != datasets[0].kind)}s"
        raise JobError("GTJ0108", what, where="data.sources", how="mix sources of one kind")
    for number, dataset in enumerate(datasets):
        note(dataset)
        if dataset.kind == "image":
            sources.append(tables.open_images(dataset, reading, number, wanted.longest(spec)))
        elif dataset.kind == "exchange":
            context = documents.settings(spec).network.context_length
            told, limit = exchanges.of(dataset, shelf), reading.derived(spec.data, found)
            sources.append(exchanges.open_exchanges(told, context, spec.data.holdout, reading.cache, limit))
    if kinds == {"text"}:
        texts = [documents.of(dataset, shelf) for dataset in datasets]
        sources += text.open_texts(spec, texts, reading.cache, reading.rule, tokenizer, reading.derived(spec.data, found))
    return captioned.described(Mixed.of_parts(sources, found), spec, reading.cache, tokenizer)


def rule_of(spec: Spec) -> Rule:
    """How a run that begins now holds samples out: what is built in cannot grow."""
    return "place" if spec.data.uri.startswith("builtin:") else "name"


def origin_of(spec: Spec, found: Sequence[Found] | None = None) -> Origin:
    """What the data is, cheaply; JobErrors as of `preflight`."""
    from trainjobs.data import documents, origin

    if spec.data.uri.startswith("builtin:stdlib-"):
        return origin.of_files(spec.data.uri, documents.stdlib_files())
    if spec.data.uri.startswith("builtin:"):
        return origin.of_builtin(spec.data.uri)
    return origin.of_found(found if found is not None else look(spec))


def preflight(spec: Spec) -> str:
    """What the data is, in a line ("1797 images, 8x8 grey"), found out cheaply and before anything else starts.

    JobError GTJ0107 when data.source cannot be read, GTJ0108 when the family cannot learn from it, GTJ0112 when reading is refused,
    GTJ0113 when the data is missing, empty, broken or too little, GTJ0219 when nobody answers.
    """
    from trainjobs.data import digits, documents, first_look, images, ring, shapes

    data = spec.data
    kind = _of_builtin(spec)
    if kind is None:
        return first_look.said(spec)
    if kind == "text":
        files = documents.stdlib_files()
        if data.uri != "builtin:stdlib-text":
            noun = {"pairs": "definitions and their docstrings", "chat": "conversations about definitions"}
            what = noun.get(data.uri.rpartition("-")[2], "definitions, each with its docstring and the same in capitals")
            return f"{what}, of {len(files):,} modules of the standard library"
        return documents.said(sum(file.size for file in files), len(files), len(files))
    if kind == "point":
        return f"{ring.COUNT} points around {len(ring.MODES)} modes"
    if data.uri == "builtin:digits":
        digits.path()
        return f"{digits.COUNT} images, {images.describe(data.images)}"
    return f"{shapes.COUNT} images, {images.describe(data.images)}"


def _of_builtin(spec: Spec) -> Literal["image", "point", "text"] | None:
    """What a source that is built in holds; None of any other."""
    source = spec.data.uri
    if not source.startswith("builtin:"):
        return None
    kind = _BUILTIN.get(source)
    if kind is None:
        raise JobError("GTJ0107", f"{source} does not exist", where="data.source", how=f"choose one of {', '.join(_BUILTIN)}")
    wanted = "text" if spec.reads_text else "image"
    if not spec.custom and (kind == "text") != (wanted == "text"):
        why, what = f"it needs {wanted}s and the source holds {kind}s", f"a {spec.family} job cannot learn from {source}"
        raise JobError("GTJ0108", what, where="data.source", why=why, how="choose another source")
    return kind
