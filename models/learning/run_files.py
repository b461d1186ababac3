"""What a run leaves for its page beside the verdict: the data it was made of, how training went, how it fared live."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, Field, ValidationError

from models.datasets import Example
from models.durable import replace_file
from models.learning.curation import QUARANTINE, Curated, Curation
from models.learning.sequential import Standing
from models.learning.verdict import MAX_FILE_BYTES, Frozen
from models.releases import parsed

DATA, CURVES, LIVE = "data.json", "curves.jsonl", "live.json"

M = TypeVar("M", bound=BaseModel)


class DataPart(Frozen):
    """Labelled texts with one purpose, such as "new feedback" or "frozen hold-out"; times where they are known."""

    name: str
    texts: int
    labels: dict[str, int]
    since: datetime | None = None
    until: datetime | None = None


class AnnotatorLine(Frozen):
    """One annotator: see `curation.AnnotatorGrade`."""

    name: str
    opinions: int
    agreement: float
    weight: float
    quarantined: str | None = None


class Reasoned(Frozen):
    """So many texts were set aside for one reason; quarantined ones wait for a person."""

    reason: str
    texts: int
    quarantined: bool


class RunData(Frozen):
    """What a run was made of. `version` is that of the opinions."""

    version: int | None = None
    parts: tuple[DataPart, ...] = ()
    set_aside: tuple[Reasoned, ...] = ()
    annotators: tuple[AnnotatorLine, ...] = ()


class Point(Frozen):
    """Figures of training after so many optimiser steps."""

    step: int = Field(ge=0)
    values: dict[str, float]


def run_data(version: int | None, parts: Mapping[str, Sequence[Example | Curated]], curation: Curation) -> RunData:
    """The data of a run from its parts by name, and what curation made of the opinions."""
    reasons = Counter(one.reason for one in curation.set_aside)
    return RunData(
        version=version,
        parts=tuple(_part(name, rows) for name, rows in parts.items()),
        set_aside=tuple(
            Reasoned(reason=reason, texts=count, quarantined=reason in QUARANTINE)
            for reason, count in reasons.most_common()
        ),
        annotators=tuple(
            AnnotatorLine(
                name=name,
                opinions=grade.opinions,
                agreement=grade.agreement,
                weight=grade.weight,
                quarantined=grade.quarantined,
            )
            for name, grade in sorted(curation.annotators.items())
        ),
    )


def _part(name: str, rows: Sequence[Example | Curated]) -> DataPart:
    times = [datetime.fromtimestamp(row.event_time_s, UTC) for row in rows if isinstance(row, Curated)]
    return DataPart(
        name=name,
        texts=len(rows),
        labels=dict(Counter(row.label for row in rows).most_common()),
        since=min(times, default=None),
        until=max(times, default=None),
    )


class CurveFile:
    """Takes the figures of a training (see `models.curves.Curves`), a line a step; a run that goes on adds to them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CURVES
        self._file: IO[str] | None = None

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Write figures down."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        self._file.write(
            json.dumps({"step": step, "values": {name: float(one) for name, one in values.items()}}) + "\n"
        )
        self._file.flush()

    def __enter__(self) -> CurveFile:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._file is not None:
            self._file.close()


def curves_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Each figure by steps; what a killed run wrote twice counts by its last value, and its last line may be cut."""
    by_name: dict[str, dict[int, float]] = {}
    for point in _points(folder / CURVES):
        for name, value in point.values.items():
            by_name.setdefault(name, {})[point.step] = value
    return {name: sorted(values.items()) for name, values in by_name.items()}


def _points(path: Path) -> Iterable[Point]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file.read(MAX_FILE_BYTES).splitlines():
            try:
                yield Point.model_validate_json(line)
            except ValidationError:
                continue


def write_data(folder: Path, data: RunData) -> None:
    """Keep what a run was made of."""
    _write(folder / DATA, data)


def write_live(folder: Path, standing: Standing) -> None:
    """Keep how the candidate fares against the champion on live texts."""
    _write(folder / LIVE, standing)


def read_data(folder: Path) -> RunData | None:
    """What the run was made of, if that was kept. Raises IntegrityError when it is malformed."""
    return _read(RunData, folder / DATA)


def read_live(folder: Path) -> Standing | None:
    """How the candidate fares, if it was let to. Raises IntegrityError when it is malformed."""
    return _read(Standing, folder / LIVE)


def _write(path: Path, content: BaseModel) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (content.model_dump_json(indent=1) + "\n").encode("utf-8", "backslashreplace"))


def _read(kind: type[M], path: Path) -> M | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return parsed(kind, path, file.read(MAX_FILE_BYTES + 1), MAX_FILE_BYTES)
