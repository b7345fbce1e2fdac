"""BLEU and ROUGE-L against sacrebleu 2.6.0 and rouge-score 0.1.2: figures that these gave for the texts below."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from trainjobs.evaluate.bleu import Counts, bleu, counts, tokens
from trainjobs.evaluate.rouge import rouge_l, subsequence
from trainjobs.evaluate.writing import Writing, Written
from trainjobs.world import World

PAIRS = [
    ("The cat sat on the mat, quietly.", "The cat is sitting on the mat, quietly."),
    ("It cost 1,250.50 dollars - or so.", "It cost 1,250.50 dollars, or so."),
    ('He said "hello" & left.', 'He said: "hello", and left!'),
    ("Return a well-known list of 3-tuples.", "Return the well-known list of 3-tuples."),
    ("", "Nothing was written."),
    ("one two three four five six", "one two three four five six"),
]
# sacrebleu.corpus_bleu([made], [[reference]]).score of each, and of all together; RougeScorer(["rougeL"]).score(reference, made).
BLEUS = [59.11602603314155, 50.000000000000014, 21.069764742263047, 75.06238537503395, 0.0, 100.00000000000004]
WHOLE = 52.74284541729489
ROUGES = [0.7999999999999999, 1.0, 0.888888888888889, 0.875, 0.0, 1.0]


def corpus(pairs: list[tuple[str, str]]) -> float:
    return bleu(sum((counts(made, reference) for made, reference in pairs), Counts()))


def test_bleu_is_sacrebleu_s() -> None:
    assert [corpus([pair]) for pair in PAIRS] == pytest.approx(BLEUS, rel=1e-12)
    assert corpus(PAIRS) == pytest.approx(WHOLE, rel=1e-12)
    assert corpus(PAIRS) != pytest.approx(sum(BLEUS) / len(BLEUS), rel=0.01), "of a corpus, not a mean of texts"


def test_rouge_is_rouge_score_s() -> None:
    assert [rouge_l(*pair) for pair in PAIRS] == pytest.approx(ROUGES, rel=1e-12)


def test_tokens_of_13a() -> None:
    assert tokens('a, 1,000.5 x-y 3-4 "b" &amp; c.\n') == ["a", ",", "1,000.5", "x-y", "3", "-", "4", '"', "b", '"', "&", "c", "."]


def test_the_longest_common_subsequence_by_hand() -> None:
    assert subsequence("abcbdab", "bdcaba") == 4
    assert subsequence("", "a") == 0


def test_words_are_those_of_any_script() -> None:
    assert rouge_l("Grüße, Welt", "grüße welt") == 1.0


@dataclass(frozen=True)
class Parrot:
    """Writes the texts of PAIRS with these numbers."""

    def hypotheses(self, batch: Any) -> list[str]:
        return [PAIRS[number][0] for number in batch]

    def references(self, batch: Any) -> list[str]:
        return [PAIRS[number][1] for number in batch]


@dataclass(frozen=True)
class Ranks(World):
    """A world whose other ranks have gathered this."""

    others: tuple[Any, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


def measured(numbers: list[list[int]]) -> Written:
    score = Written(Parrot())
    for batch in numbers:
        real: Any = batch
        score.add(real, None)
    return score


def test_the_result_is_the_same_however_texts_lie_on_ranks() -> None:
    import torch

    assert isinstance(Parrot(), Writing)
    one = measured([[0, 1, 2, 3, 4, 5]]).result(Ranks(0, 1, torch.device("cpu")))
    assert one == pytest.approx({"heldout/bleu": WHOLE, "heldout/rouge_l": sum(ROUGES) / 6})
    far = measured([[4], [5, 0]])
    both = Ranks(0, 2, torch.device("cpu"), others=((far._counts, sum(far._rouge), len(far._rouge)),))
    assert measured([[1, 2], [3]]).result(both) == pytest.approx(one)
    assert measured([]).result(Ranks(0, 1, torch.device("cpu"))) == {}
