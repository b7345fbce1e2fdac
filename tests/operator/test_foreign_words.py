"""Events, prices and labels come from others: whatever stands in them, what becomes of it is one printable line of bounded length."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator.surroundings import sick
from gentrain_operator.waiting import waiting
from tests.operator.test_autoscaler import KARPENTER, event
from tests.operator.test_decide import UNSCHEDULABLE, child, pod
from trainjobs.api.parse import parse_profile
from trainjobs.plan import prices

HUGE = "which a\x1b[31m\n\x00" * 300_000  # 4 MB
BROKEN: list[Any] = [
    {},
    {"reason": None, "note": None},
    {"reason": "FailedScheduling", "reportingController": KARPENTER, "eventTime": "yesterday", "series": None},
    {"reason": "NotTriggerScaleUp", "note": "", "source": None, "deprecatedSource": None, "metadata": None},
    {"reason": "Nominated", "note": HUGE, "source": {"component": HUGE}, "lastTimestamp": HUGE},
    {"reason": HUGE, "note": HUGE, "reportingController": HUGE},
    event("FailedScheduling", HUGE, KARPENTER),
    event("FailedScaleUp", "quota " + HUGE, HUGE, "9999-12-31T23:59:59Z"),
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_an_event_of_any_kind_is_a_line_of_the_status(broken: Any) -> None:
    waits = pod(conditions=[{**UNSCHEDULABLE[0], "message": HUGE}])
    waits["metadata"]["uid"] = "p1"
    found = waiting([waits], child(), {"p1": [broken, *BROKEN[:1]]})
    assert found is not None
    assert len(found.message) <= 1024
    assert found.message.isprintable()


@pytest.mark.parametrize("message", [HUGE, None, ""])
def test_a_condition_of_a_node_is_a_line(message: Any) -> None:
    bad = {"type": "XIDErrors", "status": "True", "message": message}
    (said,) = sick([{"metadata": {"name": "a"}, "status": {"conditions": [bad]}}]).values()
    assert said.isprintable()
    assert len(said) < 200


@pytest.mark.parametrize("price", ["nan", "inf", "-1", "1e999", "9" * 1000, "", "1,5", "$3", "0x10", None, [], {}])
def test_a_price_that_is_none_is_refused_and_named(price: Any) -> None:
    spec = {"price": {"usdPerNodeHour": price}}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "pool"}, "spec": spec}
    read, problems = parse_profile(manifest)
    assert read is None
    assert any("usdPerNodeHour" in str(problem) for problem in problems)
    assert all(len(str(problem)) < 2000 for problem in problems)


@pytest.mark.parametrize(
    "labels", [None, {}, {prices.TYPE: ""}, {prices.TYPE: HUGE}, {prices.TYPE: "p5.48xlarge", prices.REGION: "moon-1"}]
)
@pytest.mark.parametrize("capacity", ["spot", "on-demand", "reserved", "unheard"])
def test_a_node_without_a_known_price_has_none_and_the_source_says_why(labels: Any, capacity: str) -> None:
    found = prices.seen(labels, capacity)
    assert (found.usd, found.gpus) == ("", 0)
    assert found.source.startswith(prices.UNKNOWN)
