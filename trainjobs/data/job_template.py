"""The chat template that a manifest names for a base: language.template, one that is known by name or a file of jinja. It stands in the
place of the base's own, goes into every commit and export, and a run goes on only with the same text.

The token that ends an answer there becomes the tokenizer's end of text: it is what is learned behind an answer, and at which one that is
drawn stops. So a template is refused whose answers end with no special token of the tokenizer, and one that is known by name where any of
its special tokens is missing. As ordinary text it would be learned, but nothing would stop at it, and any message could write it.
"""

from __future__ import annotations

from dataclasses import replace

from trainjobs.api.errors import JobError, printable
from trainjobs.api.language import TEMPLATES, Language
from trainjobs.api.problem import listed
from trainjobs.data.chat_template import ANSWER, FILE, ChatTemplate, own
from trainjobs.data.known_templates import NAMES, TEXTS, TOKENS
from trainjobs.data.places.open import AMID, open_place
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer, read
from trainjobs.data.tokens import Tokenizer, kept
from trainjobs.stores.patience import Patience

WHERE = "language.template"
MOST = 1 << 20  # bytes of a template


def tokenizer_of(language: Language, base: Pretrained, text: str | None = None) -> PretrainedTokenizer:
    """The tokenizer of a base, with the template that the job names for it; `text` is that, where it was read before. JobErrors of `read`,
    `text_of` and `templated`."""
    found = read(base)
    if language.template is None:
        return found
    return templated(found, text_of(language.template) if text is None else text, language.template)


def ending(tokenizer: PretrainedTokenizer) -> PretrainedTokenizer:
    """With the token at which an answer ends by the base's own template among those at which one that is drawn is over. Many a base names
    another as its end of text (Gemma <eos>, and its answers end with <end_of_turn>), and would be drawn past it, into turns of its own."""
    text = own(tokenizer.base) if tokenizer.template is None else None
    if text is None:
        return tokenizer
    chat = ChatTemplate(tokenizer, text)
    try:
        end = chat.ending(chat.answered())
    except JobError:  # what it wants of a conversation is told where there is one
        return tokenizer
    return tokenizer if end is None else replace(tokenizer, ends=tuple(dict.fromkeys([*tokenizer.ends, end])))


def text_of(asked: str, seconds: float = AMID) -> str:
    """The jinja of a template by its name or its URI. JobError GTJ0118 where there is no such file, GTJ0102 where it is no text, GTJ0112
    and GTJ0219 when a store refuses or does not answer."""
    if asked in TEXTS:
        return TEXTS[asked]
    try:
        place = open_place(asked, patience=Patience(seconds))
        objects = place.listed().objects
        if len(objects) != 1:
            raise JobError("GTJ0113", "it is a folder", where=asked, how="name the file in it")
        if objects[0].size > MOST:
            raise _unusable(asked, f"it has {objects[0].size:,} bytes, and {MOST:,} are allowed")
        return place.contents(objects[0]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unusable(asked, f"it is no UTF-8: {error.reason} at byte {error.start}") from error
    except JobError as error:
        if error.code != "GTJ0113":
            raise
        how = f"name a file of jinja, or one of {listed(TEMPLATES)}"
        raise JobError("GTJ0118", "there is no such chat template", where=f"{WHERE}: {asked}", why=error.what, how=how) from error


def templated(tokenizer: PretrainedTokenizer, text: str, asked: str) -> PretrainedTokenizer:
    """The tokenizer with this template, and the end of its answers as its end of text. JobError GTJ0108 where they do not go together,
    GTJ0102 for what is no template."""
    made = replace(tokenizer, template=text)
    chat, uri = ChatTemplate(made, text), tokenizer.base.uri
    if lacking := [token for token in TOKENS.get(asked, ()) if token not in chat.specials]:
        why = f"the tokenizer of {uri} has no special token {listed(map(printable, lacking), 'and')}"
        raise _apart(asked, why, "what opens and ends a turn would be plain text, which any message could write")
    if asked in TEXTS and (unnamed := [name for name in NAMES if name in text and name not in chat.named]):
        raise _apart(asked, f"the tokenizer of {uri} names no {listed(unnamed, 'and')}")
    try:
        rendered = chat.answered()
    except JobError as error:
        raise _unusable(asked, f"of a question and an answer it makes nothing: {error.why}") from error
    if ANSWER not in rendered:
        raise _unusable(asked, "of a question and an answer it leaves the answer out")
    end = chat.ending(rendered)
    if end is None:
        raise _apart(asked, f"behind an answer stands no special token of the tokenizer of {uri}", "nothing would say where one ends")
    return replace(made, end=end, ends=tuple(dict.fromkeys([end, *tokenizer.ends])))


def unused(language: Language, what: str) -> None:
    """JobError GTJ0108 where a template is named for data in which nobody speaks."""
    if language.template is not None:
        why = f"the data is {what}, and a template renders messages"
        raise JobError("GTJ0108", "language.template has no effect", where=WHERE, why=why, how="take it out, or name other data")


def files(tokenizer: Tokenizer | None) -> dict[str, bytes]:
    """What a commit keeps beside the weights of how text becomes tokens, by the names of files."""
    text = tokenizer.template if isinstance(tokenizer, PretrainedTokenizer) else None
    return kept(tokenizer) | ({FILE: text.encode()} if text is not None else {})


def compare(before: bytes | None, now: str | None) -> None:
    """See that conversations look as they did to the run that is gone on from. JobError GTJ0208."""
    was = None if before is None else before.decode()
    if was != now:
        why = "the run began with one of its own" if now is None else "the run began with the base's own" if was is None else ""
        if was is not None and now is not None:
            lines = [text.splitlines() for text in (was, now)]
            same = next((at for at, (one, other) in enumerate(zip(*lines, strict=False)) if one != other), min(map(len, lines)))
            why = f"line {same + 1} differs from what the run began with"
        how = "put the template back as it was, or start afresh with gtj run --fresh"
        raise JobError("GTJ0208", "the chat template is another one than the checkpoint's", where=WHERE, why=why, how=how)


def _apart(asked: str, *why: str) -> JobError:
    others = listed(name for name in TEMPLATES if name != asked)
    how = f"take the model's own format ({others}), a base that has the tokens, or a file of jinja; zephyr needs none but the end of text"
    return JobError("GTJ0108", "the chat template and the base do not go together", where=f"{WHERE}: {asked}", why="; ".join(why), how=how)


def _unusable(asked: str, why: str) -> JobError:
    how = "write it as transformers has it: jinja of messages and add_generation_prompt"
    return JobError("GTJ0102", "the chat template cannot be used", where=f"{WHERE}: {asked}", why=why, how=how)
