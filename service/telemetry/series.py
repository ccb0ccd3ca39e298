"""Counters, gauges and histograms in plain Python: to count is to add to a number in a list.

Prometheus' client has such classes too, but theirs take several times as long. Here it only writes
the text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

Series = dict[tuple[str, ...], list[float]]
"""The numbers of a metric, by the values of its labels."""
Combine = Callable[[Iterable[float]], float]
Sample = tuple[str, dict[str, str], float]
"""A suffix of the metric's name, additional labels and a number."""


def combine_series(parts: Iterable[Series], combine: Combine) -> Series:
    """Combine the numbers of several processes, series by series and place by place."""
    found: dict[tuple[str, ...], list[list[float]]] = defaultdict(list)
    for labels, numbers in chain.from_iterable(series.items() for series in parts):
        found[labels].append(numbers)
    return {
        labels: [combine(numbers) for numbers in zip(*lists, strict=True)]
        for labels, lists in found.items()
    }


class Family:
    """One metric. ``series`` holds the numbers of this process."""

    kind = ""
    suffix = ""
    length = 1  # of the list of numbers of one series

    def __init__(self, name: str, text: str, *labels: str, combine: Combine = sum) -> None:
        """``combine`` makes one number of those of several processes."""
        self.name = f"service_{name}"
        self._text = text
        self._labels = labels
        self._combine = combine
        self.series: Series = {}
        if not labels:
            self.start()

    def start(self, *labels: str) -> list[float]:
        """Return the numbers of a series, which is made with zeros if it is new."""
        return self.series.setdefault(labels, [0.0] * self.length)

    def collect(self, parts: Iterable[Series]) -> Metric:
        """Combine the series of all processes, for Prometheus' client."""
        metric = Metric(self.name, self._text, self.kind)
        for values, numbers in combine_series(parts, self._combine).items():
            labels = dict(zip(self._labels, values, strict=True))
            for suffix, more, number in self._samples(numbers):
                metric.add_sample(self.name + suffix, labels | more, number)
        return metric

    def _samples(self, numbers: list[float]) -> Iterator[Sample]:
        yield self.suffix, {}, numbers[0]


class Counter(Family):
    """A metric that only grows."""

    kind = "counter"
    suffix = "_total"

    def add(self, amount: float, *labels: str) -> None:
        """Add to a series."""
        numbers = self.series.get(labels) or self.start(*labels)
        numbers[0] += amount


class Gauge(Family):
    """A metric that goes up and down."""

    kind = "gauge"

    def set(self, number: float, *labels: str) -> None:
        """Replace the number of a series."""
        self.start(*labels)[0] = number


class Histogram(Family):
    """Counts values by size. ``bounds`` are the largest values of all buckets but the last.

    The numbers of a series are the count of each bucket and the sum of the values.
    """

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> None:
        self._bounds = bounds
        self.length = len(bounds) + 2
        super().__init__(name, text, *labels)

    def observe(self, value: float, *labels: str) -> None:
        """Count a value."""
        numbers = self.series.get(labels) or self.start(*labels)
        numbers[bisect_left(self._bounds, value)] += 1
        numbers[-1] += value

    def _samples(self, numbers: list[float]) -> Iterator[Sample]:
        *counts, total = numbers
        bounds = (*map(floatToGoString, self._bounds), "+Inf")
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            yield "_bucket", {"le": bound}, count
        yield "_count", {}, sum(counts)
        yield "_sum", {}, total
