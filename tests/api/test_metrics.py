"""The table of metrics: nothing twice, and Python, CEL and evaluation mean the same by it."""

from __future__ import annotations

from itertools import groupby
from typing import get_args

from trainjobs.api.job import FAMILIES
from trainjobs.api.metrics import METRICS, SCOPES, Asked, answers, question
from trainjobs.api.uris import BUILTINS


def test_names_are_unique_and_families_and_data_exist() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert {family for metric in METRICS for family in metric.families} <= {*FAMILIES}
    assert {metric.builtin for metric in METRICS} <= {None, *BUILTINS}


def test_curves_of_a_chart_stand_together_and_differ() -> None:
    titles = [title for title, _ in groupby(metric.chart for metric in METRICS)]
    assert len({*titles}) == len(titles)
    for metric in METRICS:
        chart = [other for other in METRICS if other.chart == metric.chart]
        assert len({other.label for other in chart}) == len(chart)
        assert {other.noisy for other in chart} == {metric.noisy}


def test_every_word_is_answered_and_every_answer_has_a_direction() -> None:
    for word in get_args(Asked):
        assert answers(word)
        assert all(metric.mode for metric in answers(word))
        assert {question(metric.name) for metric in answers(word)} == {word}
    assert {*SCOPES} <= {*get_args(Asked)}


def test_what_an_objective_of_ones_own_measures_is_asked_for_by_its_name() -> None:
    assert question("heldout/accuracy") == "accuracy"
    assert question("accuracy") == "accuracy"


def test_whose() -> None:
    perplexity, modes = answers("perplexity")[0], answers("modes")[0]
    assert perplexity.suits(["language"], None)
    assert perplexity.suits(["custom"], "digits")
    assert not perplexity.suits(["vae"], None)
    assert not perplexity.suits([], None)
    assert modes.suits(["gan"], "ring")
    assert not modes.suits(["custom"], "digits")
