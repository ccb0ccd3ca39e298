"""The service's counters, gauges and histograms, compared with those of Prometheus' client."""

from __future__ import annotations

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from service.telemetry.series import Combine, Counter, Family, Gauge, Histogram

BOUNDS = (0.125, 0.5, 1, 30)
# Sums of such fractions are exact, in any order.
VALUES = st.integers(0, 640).map(lambda count: count / 16)
LABELS = st.sampled_from(["a", 'quoted "b"', "line\nbreak"])


class Page(Collector):
    """Collects one metric of two processes."""

    def __init__(self, *families: Family) -> None:
        self.families = families

    def collect(self) -> list[prometheus_client.core.Metric]:
        """Return the metric."""
        return [self.families[0].collect(family.series for family in self.families)]


def read_lines(text: bytes) -> list[str]:
    """Return the lines in order, without the times at which the client made its series."""
    return sorted(line for line in text.decode().splitlines() if "_created" not in line)


@given(st.lists(st.tuples(VALUES, LABELS, st.booleans())))
def test_sums_of_two_processes_are_those_of_one_client(
    events: list[tuple[float, str, bool]],
) -> None:
    """Counter and histogram of two processes give the text that one process's client gives."""
    registry = CollectorRegistry()
    counter = prometheus_client.Counter("service_c", "Help.", ["label"], registry=registry)
    histogram = prometheus_client.Histogram(
        "service_h", "Help.", ["label"], buckets=BOUNDS, registry=registry
    )
    counters = [Counter("c", "Help.", "label") for _ in range(2)]
    histograms = [Histogram("h", "Help.", BOUNDS, "label") for _ in range(2)]
    for value, label, process in events:
        counter.labels(label).inc(value)
        histogram.labels(label).observe(value)
        counters[process].add(value, label)
        histograms[process].observe(value, label)
    text = generate_latest(Page(*counters)) + generate_latest(Page(*histograms))
    assert read_lines(text) == read_lines(generate_latest(registry))


@pytest.mark.parametrize(("combine", "expected"), [(sum, 10), (min, 2), (max, 8)])
def test_gauges_are_combined(combine: Combine, expected: float) -> None:
    """The numbers of two processes become their sum, the lower or the higher of them."""
    gauges = [Gauge("g", "Help.", combine=combine) for _ in range(2)]
    for gauge, number in zip(gauges, (8, 2), strict=True):
        gauge.set(1)
        gauge.set(number)
    assert f"service_g {expected:.1f}" in read_lines(generate_latest(Page(*gauges)))
