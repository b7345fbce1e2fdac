"""What head pods say, whatever it is."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain_operator import report

numbers = st.integers() | st.integers(400, 410).map(lambda digits: 10**digits) | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(anything)
def test_any_report_gives_a_status_that_the_schema_takes(value: Any) -> None:
    lie = dict.fromkeys(
        ("step", "samples", "etaSeconds", "updatedAt", "metrics", "throughput", "checkpoint", "failure", "stage", "checkpointFailure"),
        value,
    )
    lie |= dict.fromkeys(("phase", "message", "workers"), value)
    lie["metrics"] = {"m": value, "k" * 99: 1.0}
    made = report.progress(lie, 100)
    assert 0 <= made["step"] <= 100
    assert 0 <= made["percent"] <= 100
    for metric in made["metrics"]:
        assert len(metric["name"]) <= 64
        assert len(metric["value"]) <= 64
    json.dumps(made, allow_nan=False)
    report.checkpoint(lie)
    report.unsaved(lie)
    report.failure(lie)
    report.stage(lie)
    assert report.workers(lie, 2, 8) in (None, *range(2, 9))


def test_numbers_that_are_none_are_shown() -> None:
    made = report.progress({"step": 5, "metrics": {"loss": math.nan, "other": math.inf, "text": "x", "flag": True}}, 10)
    assert made["metrics"] == [{"name": "loss", "value": "nan"}, {"name": "other", "value": "inf"}]


class Liar:
    """A server that answers one connection with given pieces, a pause after each, and then closes or stays silent."""

    def __init__(self, pieces: list[bytes], pause: float = 0.0, close: bool = True) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = threading.Event()

        def serve() -> None:
            connection, _ = self.listener.accept()
            try:
                connection.recv(1000)
                for piece in pieces:
                    connection.sendall(piece)
                    if self.ended.wait(pause):
                        return
                if not close:
                    self.ended.wait(30)
            except OSError:
                pass
            finally:
                connection.close()

        threading.Thread(target=serve, daemon=True).start()


@pytest.fixture
def liar() -> Iterator[Any]:
    made: list[Liar] = []

    def make(*arguments: Any, **more: Any) -> Liar:
        made.append(Liar(*arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.ended.set()
        one.listener.close()


OK = b"HTTP/1.0 200 OK\r\n\r\n"


def test_an_honest_report_is_read(liar: Any) -> None:
    assert report.fetch("127.0.0.1", liar([OK, b'{"step"', b": 3}"]).port) == {"step": 3}


@pytest.mark.parametrize(
    ("pieces", "pause", "close", "why"),
    [
        ([OK + b"{"], 0, False, "within"),
        ([b"H"] * 100, 0.02, False, "within"),
        ([OK] + [b"x" * 10_000] * 10, 0, True, "more than"),
        ([OK + b"not json"], 0, True, "not JSON"),
        ([OK + b"[" * 10_000], 0, True, "not JSON"),
        ([OK + b"[1]"], 0, True, "not an object"),
        ([b"HTTP/1.0 500 Oops\r\n\r\n{}"], 0, True, "500 Oops"),
        ([b""], 0, True, "the answer was"),
    ],
    ids=["hangs", "drips", "floods", "no json", "deep json", "list", "500", "closes"],
)
def test_a_lying_endpoint_costs_no_more_than_the_deadline(liar: Any, pieces: list[bytes], pause: float, close: bool, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(report.Unreadable, match=why):
        report.fetch("127.0.0.1", liar(pieces, pause, close).port, timeout=0.2)
    assert time.monotonic() - began < 5


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(report.Unreadable):
        report.fetch("127.0.0.1", port, timeout=0.2)


def test_nobody_at_a_port_is_a_refusal() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(report.Unreadable) as found:
            report.fetch("127.0.0.1", held.getsockname()[1])
    assert found.value.refused
