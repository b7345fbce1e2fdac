"""A definition that lacks fields: which, and a status without them."""

from __future__ import annotations

import copy
from typing import Any

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.served import EVERY, RETRY, Served, fitting, missing
from trainjobs.api.crd import structural
from trainjobs.api.job import Spec
from trainjobs.api.status import Status

WHOLE = {"properties": {"spec": structural(Spec), "status": structural(Status)}}
STATUS = {
    "phase": "Pending",
    "plan": {"workers": 1},
    "progress": {"step": 1, "display": "x"},
    "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}],
}


def lacking() -> dict[str, Any]:
    served = copy.deepcopy(WHOLE)
    del served["properties"]["status"]["properties"]["plan"]
    del served["properties"]["status"]["properties"]["progress"]["properties"]["display"]
    return served


def test_what_is_missing_is_named() -> None:
    assert list(missing(WHOLE, WHOLE)) == []
    assert sorted(missing(WHOLE, lacking())) == [".status.plan", ".status.progress.display"]
    assert fitting(STATUS, lacking()["properties"]["status"]) == {
        "phase": "Pending",
        "progress": {"step": 1},
        "conditions": STATUS["conditions"],
    }


def test_the_status_says_what_is_left_out_and_is_whole_again_later() -> None:
    now, answers = [0.0], [lacking(), WHOLE]
    served = Served(lambda: answers.pop(0), lambda: now[0])
    assert served.fitting(STATUS) == STATUS
    served.look()
    assert served.note().startswith("GTJ0301 ")
    assert "status.plan" in served.note()
    assert served.fitting(STATUS)["conditions"][0]["message"] == served.note()
    assert "plan" not in served.fitting(STATUS)
    now[0] = EVERY - 1
    served.look()
    assert len(answers) == 1
    now[0] = EVERY + 1
    served.look()
    assert (served.note(), served.fitting(STATUS)) == ("", STATUS)


def test_a_write_that_is_refused_asks_again_but_not_without_pause() -> None:
    now, asked = [0.0], []
    served = Served(lambda: asked.append(now[0]) or WHOLE, lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        served.look(soon=True)
    assert asked == [float(second) for second in range(0, 100, int(RETRY))]


def test_a_server_that_cannot_be_asked_is_no_older_one() -> None:
    def down() -> Any:
        raise ApiError(503, "X", "down")

    served = Served(down, lambda: 0.0)
    served.look()
    assert (served.note(), served.fitting(STATUS)) == ("", STATUS)
