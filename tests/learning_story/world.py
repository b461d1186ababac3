"""What the story is about: texts of yesterday, texts of today, and which of them nobody may learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.datasets import Example

TASK = "message"  # what a message is about


@dataclass(frozen=True)
class World:
    """No two of these have a text in common, or nearly.

    The champion learns `taught`. `hold_out` is frozen: candidates are measured on it, and so is what they forget. When
    the world has shifted, people label `heard`, while `graded` is for the story alone.
    """

    name: str
    labels: tuple[str, ...]  # those of `taught` and `hold_out`, and those that are new with the shift
    taught: Sequence[Example]
    hold_out: Sequence[Example]
    heard: Sequence[Example]
    graded: Sequence[Example]
    base: str | None  # the encoder; None is the packaged one
    training: Sequence[str]  # what else `streamgauge train` is told for the champion
    knobs: Mapping[str, object]  # `[retrain] knobs`: those of its successors

    def sizes(self) -> dict[str, int]:
        """How many texts each part has."""
        return {part: len(getattr(self, part)) for part in ("taught", "hold_out", "heard", "graded")}


def write(path: Path, examples: Sequence[Example]) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps(one._asdict()) + "\n" for one in examples))
    return path
