"""Records of a language model as text, what is learned of them between two marks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from torch import Tensor

from trainjobs.data.answers import NOT_LEARNED

OPEN, CLOSE = "⟦", "⟧"  # around what is learned
Marked = list[tuple[int, bool]]  # a token, and whether it is learned
Cut = Callable[[list[int]], str]  # the text of tokens


def texts(batch: Mapping[str, Tensor], cut: Cut) -> Iterator[str]:
    """A text for each row of a batch of answers.py, or of pairs (see data/preferences.py)."""
    for row in range(len(batch["tokens"])):
        if batch["tokens"].dim() == 3:
            tokens_2L, labels_2L, lengths_2 = (batch[name][row] for name in ("tokens", "labels", "lengths"))
            sides = (pair(tokens_2L[side], labels_2L[side], int(lengths_2[side])) for side in (0, 1))
            yield "\n".join(f"{name}: {marked(side, cut)}" for name, side in zip(("chosen", "rejected"), sides, strict=True))
        elif "source" in batch:
            written_T = batch["labels"][row]
            written = [(token, True) for token in written_T[written_T != NOT_LEARNED].tolist()]
            yield f"{cut(batch['source'][row][batch['seen'][row].bool()].tolist())}\n{marked(written, cut)}"
        elif "labels" not in batch:
            yield cut(batch["tokens"][row][batch["seen"][row].bool()].tolist())
        else:
            whose = batch["documents"][row].tolist() if "documents" in batch else None
            tokens, labels = (batch[name][row].tolist() for name in ("tokens", "labels"))
            yield "\n".join(marked(one, cut) for one in documents(tokens, labels, whose))


def documents(tokens: Sequence[int], labels: Sequence[int], whose: Sequence[int] | None) -> Iterator[Marked]:
    """Each document of a row, with the last token that is predicted. A row of one ends where the last is learned."""
    if whose is None:
        last = max((at for at, label in enumerate(labels) if label != NOT_LEARNED), default=-1)
        whose = [0] * (last + 1)
    for document, places in groupby(range(len(whose)), key=lambda at: whose[at]):
        if document >= 0:
            numbers = list(places)
            found = [(tokens[numbers[0]], False)]
            found += [(tokens[at], labels[at - 1] != NOT_LEARNED) for at in numbers[1:]]
            if labels[numbers[-1]] != NOT_LEARNED:
                found.append((labels[numbers[-1]], True))
            yield found


def pair(tokens: Tensor, labels: Tensor, length: int) -> Marked:
    """One answer of a pair, with its prompt: `length` tokens."""
    before = [NOT_LEARNED, *labels.tolist()]
    return [(token, before[at] != NOT_LEARNED) for at, token in enumerate(tokens.tolist()[:length])]


def marked(tokens: Marked, cut: Cut) -> str:
    runs = ((learned, cut([token for token, _ in run])) for learned, run in groupby(tokens, key=lambda one: one[1]))
    return "".join(f"{OPEN}{text}{CLOSE}" if learned else text for learned, text in runs)
