"""The webhook and a real API server: what is told stands in the status, and outlives the operator."""

from __future__ import annotations

import pytest

from tests.cluster.at_work import Bench, report
from tests.operator.test_webhook import Receiver, receiver

__all__ = ("receiver",)
pytestmark = pytest.mark.slow


def test_an_operator_tells_what_the_one_before_could_not(bench: Bench, receiver: Receiver) -> None:
    bench.stop()
    bench.webhook, receiver.answer = receiver.url, 500
    bench.start()
    bench.apply()
    name = bench.running()
    bench.driver.report = report(40)
    bench.phase("Running")
    bench.kuberay.succeed(name)
    bench.until(lambda: receiver.bodies)
    assert [sorted(one) for one in bench.status()["notices"]] == [["kind", "since"]]
    bench.stop()
    receiver.answer = 200
    bench.start()
    bench.until(lambda: "toldAt" in bench.status()["notices"][0])
    assert {body["job"]["id"] for body in receiver.bodies} == {
        f"{bench.job()['metadata']['uid']}/Finished/{bench.status()['notices'][0]['since']}"
    }
    assert bench.status()["phase"] == "Succeeded"
