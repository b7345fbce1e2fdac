"""Charts: what shares one, how points are thinned, where ticks stand."""

from __future__ import annotations

import math
import re
import statistics

from hypothesis import given
from hypothesis import strategies as st

from trainjobs.report.chart import axes, drawn, linear, logarithmic
from trainjobs.report.curves import Chart, Series, charts, downsampled, scales, smoothed, steps
from trainjobs.report.marks import Mark

VALUES = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=400)


def test_waiting_for_data_has_a_chart_of_shares() -> None:
    (chart,) = charts([{"step": 1, "data/wait": 0.2}, {"step": 2, "data/wait": 0.01}])
    assert (chart.title, chart.unit, chart.losses) == ("Waiting for data", "share", False)
    assert chart.series[0].values == (0.2, 0.01)


def series(values: list[float]) -> Series:
    return Series("x", tuple(range(len(values))), tuple(values))


def test_training_and_heldout_loss_share_a_chart_and_networks_do_not() -> None:
    language = charts(
        [{"step": 1, "loss": 2.0, "lr/model": 0.1, "throughput": 5.0}, {"step": 2, "heldout/loss": 2.5, "heldout/perplexity": 12.2}]
    )
    assert [(chart.title, [one.label for one in chart.series]) for chart in language] == [
        ("Loss", ["training", "held-out"]),
        ("Held-out perplexity", ["perplexity"]),
        ("Learning rate", ["model"]),
        ("Throughput", ["per second"]),
    ]
    gan = charts([{"step": 1, "loss/D": 1.0, "loss/G": 2.0, "lr/generator": 0.1, "lr/discriminator": 0.4, "modes": 8}])
    assert [chart.title for chart in gan] == ["Discriminator loss", "Generator loss", "modes", "Learning rate"]
    assert [one.label for one in gan[3].series] == ["discriminator", "generator"]


def test_what_is_nan_in_a_row_is_nan_in_a_curve() -> None:
    (chart,) = charts([{"step": 1, "loss": 1.0}, {"step": 2, "loss": "nan"}])
    assert math.isnan(chart.series[0].values[1])
    assert 'class="broken"' in drawn(chart)["svg"]


@given(VALUES, st.integers(4, 60))
def test_thinning_keeps_ends_order_and_extremes(values: list[float], limit: int) -> None:
    whole = series(values)
    small = downsampled(whole, limit)
    assert len(small.steps) <= max(limit, min(limit, len(values)))
    assert (small.steps[0], small.steps[-1]) == (0, len(values) - 1)
    assert list(small.steps) == sorted(set(small.steps))
    finite = [value for value in values if math.isfinite(value)]
    kept = [value for value in small.values if math.isfinite(value)]
    if finite and len(finite) == len(values):
        assert (min(kept), max(kept)) == (min(finite), max(finite))


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=300))
def test_the_running_mean_is_the_mean_of_its_window(values: list[float]) -> None:
    half = max(2, len(values) // 80)
    for index, mean in enumerate(smoothed(series(values)).values):
        assert math.isclose(mean, statistics.fmean(values[max(0, index - half) : index + half + 1]), abs_tol=1e-6)


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_ticks_are_few_even_and_inside(low: float, span: float) -> None:
    high = low + span
    if high == low or span < abs(low) * 1e-9:
        return
    ticks = linear(low, high)
    assert 2 <= len(ticks) <= 12
    assert all(low - span * 1e-6 <= tick <= high + span * 1e-6 for tick in ticks)


def test_ticks_are_round() -> None:
    assert linear(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert linear(0, 5000) == [0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0]
    assert logarithmic(0.002, 350.0) == [0.01, 0.1, 1.0, 10.0, 100.0]


def test_a_wide_range_of_positive_values_gets_a_logarithmic_axis() -> None:
    wide, narrow = axes(Chart("a", (series([0.01, 50.0]),))), axes(Chart("a", (series([1.0, 50.0]),)))
    assert wide is not None
    assert narrow is not None
    assert (wide.log, narrow.log) == (True, False)
    assert axes(Chart("a", (series([math.nan]),))) is None


def test_losses_have_one_scale() -> None:
    wide, narrow, signed = ([0.01, 50.0], [1.0, 50.0], [-1.0, 50.0])
    charts = [Chart(str(values), (series(values),), losses=losses) for losses in (True, False) for values in (wide, narrow, signed)]
    assert scales(charts) == [True, True, False, True, False, False]
    assert scales(charts[1:]) == [False, False, True, False, False], "none of the losses needs it now"


def test_axes_are_named_and_shared() -> None:
    language = charts(
        [{"step": 5, "loss": 2.0, "throughput": 5.0}, {"step": 80, "heldout/loss": 2.5, "modes": 1.0}], "language", "tokens/s"
    )
    assert [(chart.title, chart.unit) for chart in language] == [("Loss", "nats a token"), ("modes", ""), ("Throughput", "tokens/s")]
    assert steps(language) == (5, 80)
    pictures = [drawn(chart, (), None, steps(language)) for chart in language]
    for picture, name in zip(pictures, ("nats a token", "modes", "tokens/s"), strict=True):
        assert re.findall(r'class="tick name"[^>]*>([^<]*)<', picture["svg"]) == [name, "step"]
        assert (picture["hover"]["first"], picture["hover"]["last"]) == (5, 80)
    assert charts([{"step": 1, "loss": 2.0}], "vae")[0].unit == "nats a sample"
    assert charts([{"step": 1, "loss/D": 2.0}], "gan")[0].unit == ""


def test_marks_stand_where_they_belong_and_their_words_do_not_overlap() -> None:
    told = [Mark(step, "resumed", "live", "<b>") for step in (0, 30, 31, 32, 90, 100, 500)]
    svg = drawn(Chart("a", (series([1.0] * 101),)), told)["svg"]
    lines = [float(x) for x in re.findall(r'<g class="mark m-live">.*?<path d="M([\d.]+) ', svg)]
    assert len(lines) == 6, "what lies beyond the chart is not on it"
    assert lines == sorted(lines)
    words = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="\w+">resumed', svg)]
    assert len(words) == 2
    assert words[1] - words[0] >= 70
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg


@given(VALUES)
def test_every_chart_is_drawn_inside_its_picture(values: list[float]) -> None:
    hover = drawn(Chart("a", (series(values),), noisy=True))["hover"]
    if hover is not None:
        assert all(y is None or -1 <= y <= 211 for y in hover["curves"][0]["y"])
