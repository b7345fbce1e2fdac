"""The configuration as it ran: what the command line changed is marked, and nothing in it is markup."""

from __future__ import annotations

from html.parser import HTMLParser

import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.report.configuration import changed, effective, lines, scalar

JOB = {"metadata": {"name": "faces"}, "spec": {"training": {"steps": 60, "optimizers": {"default": {"betas": [0.9, 0.99]}}}, "pod": {}}}
CHANGES = {
    "spec.training.steps": {"by": "--steps 60", "was": 1500},
    "spec.training.optimizers.default.betas": {"by": "--set training.optimizers.default.betas=[0.9,0.99]", "was": None},
}


class Marked(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside, self.marked, self.text = False, "", ""
        self.feed(str(text))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert tag in ("b", "i", "mark")
        self.inside = self.inside or tag == "mark"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "mark"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.marked += data if self.inside else ""


def test_what_the_command_line_changed_is_marked() -> None:
    page = Marked(effective(JOB, CHANGES))
    assert page.marked == "    steps: 60        betas: [0.9, 0.99]"
    assert "steps: 60 # --steps 60; 1500 in the manifest" in page.text
    assert "not in the manifest" in page.text
    assert Marked(effective(JOB, {})).marked == ""
    assert [change["path"] for change in changed(CHANGES)] == list(CHANGES)


def test_it_is_yaml_of_the_same() -> None:
    assert yaml.safe_load("\n".join(text for _, text in lines(JOB, ()))) == JOB


PLAIN = (
    st.text(st.characters(exclude_categories=("C",), max_codepoint=0x2FF), max_size=20)
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(-10, 10)
)


@given(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_every_value_is_yaml_on_one_line(value: object) -> None:
    text = scalar(value)
    assert "\n" not in text
    if "e-" not in text:  # YAML 1.1, which PyYAML reads, takes 1e-05 for text
        assert yaml.safe_load(text) == value


def test_what_is_torn_or_hostile_is_text() -> None:
    hostile = '</pre><script>alert("1")</script>'
    page = Marked(effective({hostile: {hostile: hostile}}, {f"{hostile}.{hostile}": {"by": hostile, "was": [hostile]}}))
    assert page.text.count("<script>") >= 4
    assert Marked(effective(JOB, {"spec.training.steps": "torn"})).marked == ""
    assert changed({"spec": 3}) == []
