"""What rank 0 says in its log: in virtual time."""

from __future__ import annotations

from trainjobs.cli.logs import written
from trainjobs.monitor.diary import EVERY, Diary


def test_events_are_said_and_steps_every_ten_seconds_with_the_first_and_the_last() -> None:
    said: list[str] = []
    moment = [1000.0]
    diary = Diary(100, said.append, lambda: moment[0])
    diary.event("started", 0, "2 workers")
    for step in range(1, 101):
        diary.stepped(step, {"loss": 0.5, "lr/model": 1e-3}, "12 samples/s")
        moment[0] += EVERY / 40
    diary.stepped(100, {"loss": 0.5, "data/wait": 0.049}, "12 samples/s")
    diary.stepped(100, {"loss": 0.5, "data/wait": 0.123}, "12 samples/s")
    diary.event("stopped")
    texts = [line.split(" ", 2)[2] for line in said]
    assert texts[0] == "started at step 0: 2 workers"
    assert texts[1] == "step 1/100, loss 0.5, 12 samples/s"
    assert [text.split("/")[0] for text in texts[1:-1]] == ["step 1", "step 41", "step 81", "step 100", "step 100", "step 100"]
    assert texts[-3] == "step 100/100, loss 0.5, 12 samples/s"
    assert texts[-2] == "step 100/100, loss 0.5, 12 samples/s, waiting for data 12 %"
    assert texts[-1] == "stopped"
    assert [written(line) for line in said[:2]] == [1000.0, 1000.0], "gtj logs --since reads its times"
