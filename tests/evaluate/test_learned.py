"""Records as people see them: what is learned is between two marks."""

from __future__ import annotations

from functools import partial

import torch

from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.evaluate.learned import texts
from trainjobs.evaluate.sheet import cut

BYTES = ByteTokenizer()
END, N = BYTES.end, NOT_LEARNED
CUT = partial(cut, tokenizer=BYTES)


def numbers(text: str) -> list[int]:
    return [END if one == "▮" else ord(one) for one in text]


def test_of_several_documents_each_has_a_line_and_its_end() -> None:
    tokens = [*numbers("▮q?ab▮rs"), END]
    labels = [N, N, *numbers("ab▮"), N, *numbers("s▮"), N]
    whose = [0] * 5 + [1] * 3 + [-1]
    batch = {"tokens": torch.tensor([tokens]), "labels": torch.tensor([labels]), "documents": torch.tensor([whose])}
    assert list(texts(batch, CUT)) == ["▮q?⟦ab▮⟧\n▮r⟦s▮⟧"]


def test_what_a_row_is_filled_up_with_is_not_shown() -> None:
    batch = {"tokens": torch.tensor([[*numbers("▮qa"), END, END]]), "labels": torch.tensor([[N, *numbers("a▮"), N, N]])}
    assert list(texts(batch, CUT)) == ["▮q⟦a▮⟧"]


def test_both_answers_of_a_pair_are_shown_with_their_prompt() -> None:
    tokens = [numbers("▮qab▮"), [*numbers("▮qc▮"), END]]
    labels = [[N, *numbers("ab▮"), N], [N, *numbers("c▮"), N, N]]
    batch = {"tokens": torch.tensor([tokens]), "labels": torch.tensor([labels]), "lengths": torch.tensor([[5, 4]])}
    assert list(texts(batch, CUT)) == ["chosen: ▮q⟦ab▮⟧\nrejected: ▮q⟦c▮⟧"]
