"""A Prometheus histogram that takes many observations at once: one per event would cost more than scoring it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class BulkHistogram(Collector):
    """Counts by bucket and label value. Updated by one thread, read by any.

    Args:
        name: of the metric.
        documentation: what it says.
        bounds: upper bounds of the buckets, ascending; one more, without bound, is added.
        label: the one label's name.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], label: str) -> None:
        self._name, self._documentation, self.label = name, documentation, label
        self._bounds = np.asarray(bounds, np.float64)
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        # By label value: how many in each bucket, and their sum. Replaced whole: a reader sees both of one time.
        self._seen: dict[str, tuple[np.ndarray[tuple[int], np.dtype[np.int64]], float]] = {}

    def announce(self, value: str) -> None:
        """Start the series of a label value at 0."""
        self._seen.setdefault(value, (np.zeros(len(self._names), np.int64), 0.0))

    def observe(self, value: str, observations: ArrayLike) -> None:
        """Count observations under a label value."""
        seen = np.asarray(observations, np.float64)
        self.announce(value)
        counts, total = self._seen[value]
        places = np.searchsorted(self._bounds, seen)  # a bound belongs to its own bucket
        added = np.bincount(places, minlength=len(self._names))
        self._seen[value] = counts + added, total + float(seen.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus wants it: buckets count everything up to their bound."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self.label])
        for value, (counts, total) in list(self._seen.items()):
            buckets = list(zip(self._names, map(float, counts.cumsum()), strict=True))
            family.add_metric([value], buckets, total)
        yield family
