"""A histogram of many observations at once says what the one of the Prometheus client says of one after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streams.bulk_histogram import BulkHistogram

NAME, WHAT, LABEL = "wait_seconds", "How long", "source"
BOUNDS = (0.001, 0.5, 1.0, 2.5, 10.0, 300.0)


def bulk(bounds: tuple[float, ...] = BOUNDS) -> tuple[BulkHistogram, CollectorRegistry]:
    registry, one = CollectorRegistry(auto_describe=True), BulkHistogram(NAME, WHAT, bounds, LABEL)
    registry.register(one)
    return one, registry


def samples(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """As a scraper reads the page; when a series was made is not compared."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in families
        for one in family.samples
        if not one.name.endswith("_created")
    }


values = st.sampled_from(BOUNDS) | st.floats(0, 1000) | st.integers(0, 400).map(float)


@given(
    st.sets(st.floats(1e-4, 9e5, allow_subnormal=False), min_size=1, max_size=8).map(lambda one: tuple(sorted(one))),
    st.lists(st.tuples(st.sampled_from(["news", "chat", 'a "name"\n']), st.lists(values, max_size=20)), max_size=8),
)
def test_it_equals_the_histogram_of_the_client(bounds: tuple[float, ...], calls: list[tuple[str, list[float]]]) -> None:
    ours, registry = bulk(bounds)
    other = CollectorRegistry()
    theirs = Histogram(NAME, WHAT, [LABEL], buckets=bounds, registry=other)
    for source, observations in calls:
        ours.observe(source, np.array(observations))
        for one in observations:
            theirs.labels(source).observe(one)
        theirs.labels(source)
    found, wanted = samples(registry), samples(other)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert abs(found[key] - value) <= 1e-9 * max(1.0, value), key


def test_a_bound_belongs_to_its_own_bucket() -> None:
    one, registry = bulk()
    one.observe("news", [0.5, 0.5000001, 300.0, 300.1, float("inf")])
    for bound, count in (("0.001", 0), ("0.5", 1), ("1.0", 2), ("300.0", 3), ("+Inf", 5)):
        assert registry.get_sample_value(f"{NAME}_bucket", {LABEL: "news", "le": bound}) == count


def test_a_series_that_is_announced_is_there_with_nothing_in_it() -> None:
    one, registry = bulk()
    assert samples(registry) == {}
    one.announce("news")
    assert registry.get_sample_value(f"{NAME}_count", {LABEL: "news"}) == 0
    one.observe("news", [1.0, 2.0])
    one.announce("news")
    assert registry.get_sample_value(f"{NAME}_sum", {LABEL: "news"}) == 3.0
    one.observe("news", [])
    assert registry.get_sample_value(f"{NAME}_count", {LABEL: "news"}) == 2


def test_the_page_names_it_once_with_its_type() -> None:
    one, registry = bulk()
    one.observe("news", [0.1])
    one.observe("chat", [0.1])
    page = generate_latest(registry).decode()
    assert page.count(f"# HELP {NAME} {WHAT}\n# TYPE {NAME} histogram\n") == 1
