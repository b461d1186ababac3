from models.class_report import class_report
from models.datasets import Example


def test_labels_are_counted_by_part() -> None:
    train = [Example("aaaa", "x"), Example("bb", "x"), Example("cccccc", "x"), Example("d", "y")]
    found = class_report({"train": train, "dev": [Example("e" * 11, "y"), Example("ff", "z")]})
    assert found.examples == {"train": 4, "dev": 2}
    assert found.imbalance == {"train": 3.0, "dev": 1.0}
    assert [row.label for row in found.labels] == ["x", "y", "z"]
    x, y, _ = found.labels
    assert (x.count, x.share) == ({"train": 3, "dev": 0}, {"train": 0.75, "dev": 0.0})
    assert (x.median_chars, y.median_chars, y.p95_chars) == (4.0, 6.0, 10.5)
