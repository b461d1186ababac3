"""What labels there are, how often, and how long their texts are: one row a label, one column a part."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.datasets import Example


class LabelRow(BaseModel):
    """One label."""

    model_config = ConfigDict(frozen=True)

    label: str
    count: dict[str, int] = Field(description="examples, by part")
    share: dict[str, float] = Field(description="of the part's examples, 0..1")
    median_chars: float = Field(description="length of its texts in all parts together")
    p95_chars: float


class ClassReport(BaseModel):
    """All labels, the commonest of the first part first."""

    model_config = ConfigDict(frozen=True)

    examples: dict[str, int]
    imbalance: dict[str, float] = Field(description="examples of a part's commonest label for one of its rarest")
    labels: tuple[LabelRow, ...]


def class_report(parts: Mapping[str, Sequence[Example]]) -> ClassReport:
    """The report of one or more parts, each with at least one example; by name."""
    counts: dict[str, dict[str, int]] = {}
    lengths: dict[str, list[int]] = {}
    for name, examples in parts.items():
        for text, label in examples:
            its = counts.setdefault(label, dict.fromkeys(parts, 0))
            its[name] += 1
            lengths.setdefault(label, []).append(len(text))
    rows = [
        LabelRow(
            label=label,
            count=its,
            share={name: round(count / max(1, len(parts[name])), 4) for name, count in its.items()},
            median_chars=float(np.median(lengths[label])),
            p95_chars=float(np.quantile(lengths[label], 0.95)),
        )
        for label, its in counts.items()
    ]
    first = next(iter(parts))
    rows.sort(key=lambda row: (-row.count[first], row.label))
    return ClassReport(
        examples={name: len(examples) for name, examples in parts.items()},
        imbalance={name: _imbalance([row.count[name] for row in rows]) for name in parts},
        labels=tuple(rows),
    )


def _imbalance(counts: Sequence[int]) -> float:
    there = [count for count in counts if count]
    return round(max(there) / min(there), 2)
