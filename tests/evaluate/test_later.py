"""Figures beside training: whoever begins goes on at once, each is handed out once, in order, and an error is not lost."""

from __future__ import annotations

from threading import Event, get_ident

import pytest

from trainjobs.evaluate.later import Later


def test_figures_are_computed_in_another_thread_and_handed_out_once() -> None:
    later, go, where = Later(), Event(), list[int]()

    def compute() -> dict[str, float]:
        go.wait(60)
        where.append(get_ident())
        return {"fid": 1.0}

    later.begin(10, compute)
    assert later.ready() == []
    go.set()
    assert later.all() == [(10, {"fid": 1.0})]
    assert where != [get_ident()]
    assert later.ready() == later.all() == []


def test_the_next_waits_for_the_one_before() -> None:
    later = Later()
    for step in (1, 2, 3):
        later.begin(step, lambda step=step: {"fid": float(step)})  # type: ignore[misc]
    assert later.all() == [(step, {"fid": float(step)}) for step in (1, 2, 3)]


def test_whoever_waits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.evaluate.later.AGAIN", 0.001)
    later, go, told = Later(), Event(), list[str]()

    def tell() -> None:
        told.append("waiting")
        go.set()

    later.begin(1, lambda: {"fid": float(go.wait(60))})
    assert later.all(tell) == [(1, {"fid": 1.0})]
    assert told


def test_a_mistake_is_raised_to_whoever_asks() -> None:
    later = Later()
    later.begin(1, lambda: {"fid": 1 / 0})
    with pytest.raises(ZeroDivisionError):
        later.all()
    assert later.all() == []


def test_what_did_not_happen_is_forgotten() -> None:
    later = Later()
    later.begin(1, lambda: {"fid": 1.0})
    later.begin(2, lambda: {"fid": 2.0})
    later.forget()
    assert later.all() == []
