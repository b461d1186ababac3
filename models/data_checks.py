"""What is wrong with labelled data before anything is learned from it: one list of findings for all its parts.

The first part is what a model learns from, the others are what it is measured on. An error makes figures wrong or text
unusable; a warning may be as it should be. Texts count as the same when only case and spacing differ.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from models.datasets import TEXT_AND_LABEL, Columns, Located, Rejected, normalised
from models.near_duplicates import ALIKE, Pair, near_duplicates
from models.readers import scan

SHOWN = 5  # examples with a finding
SHOWN_CHARS = 100
FEW = 10  # examples of a label: under it nothing reliable is learned without the few-shot recipe

Level = Literal["error", "warning"]
Progress = Callable[[str, int, int], None]


class Part(NamedTuple):
    """One file or hub data set: its examples, and the rows that are none."""

    name: str
    found: Sequence[Located]
    rejected: Sequence[Rejected]


class Finding(BaseModel):
    """One kind of thing that is wrong, in which part or parts, how often, and what to do."""

    model_config = ConfigDict(frozen=True)

    kind: str
    level: Level
    parts: tuple[str, ...] = Field(description="the part, or the two parts that have it in common")
    count: int = Field(ge=1, description="rows; of two parts, rows of the second")
    advice: str
    examples: tuple[str, ...] = Field(description="the first few, with file and line")


class DataCheck(BaseModel):
    """All findings, errors first, and how much was looked at."""

    model_config = ConfigDict(frozen=True)

    rows: dict[str, int]
    alike: float | None = Field(description="how similar near-duplicates are at least; null: not looked for")
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many kinds of errors were found."""
        return sum(finding.level == "error" for finding in self.findings)


def read_part(source: str | Path, columns: Columns = TEXT_AND_LABEL) -> Part:
    """Read a source with all that is wrong in it. Raises BadDataset when it cannot be read as a whole."""
    found: list[Located] = []
    rejected: list[Rejected] = []
    for one in scan(source, columns):
        if isinstance(one, Located):
            found.append(one)
        else:
            rejected.append(one)
    return Part(str(source), found, rejected)


def check_parts(parts: Sequence[Part], alike: float | None = ALIKE, progress: Progress | None = None) -> DataCheck:
    """All findings in the parts and between them; without `alike` near-duplicates are not looked for.

    Raises MissingExtra when they are looked for and the library for it is not installed.
    """
    findings = [finding for part in parts for finding in _within(part)]
    findings += _between(parts)
    if alike is not None:
        findings += _near(parts, alike, progress)
    findings.sort(key=lambda finding: finding.level)  # stable: "error" before "warning"
    return DataCheck(rows={part.name: len(part.found) for part in parts}, alike=alike, findings=tuple(findings))


def _within(part: Part) -> Iterator[Finding]:
    """Unusable rows, texts without words, repeats, contradictions, rare labels."""

    def finding(kind: str, level: Level, rows: Sequence[str], advice: str) -> Iterator[Finding]:
        if rows:
            yield _finding(kind, level, (part.name,), rows, advice)

    rejected = [f"{one.where}: {one.reason}" for one in part.rejected]
    yield from finding("unusable row", "error", rejected, "mend or remove them: training stops at the first")
    wordless = [_shown(one) for one in part.found if not any(map(str.isalnum, one.example.text))]
    yield from finding("text without a word", "warning", wordless, "remove them, unless signs alone carry the label")

    groups: dict[str, list[Located]] = defaultdict(list)
    for one in part.found:
        groups[normalised(one.example.text)].append(one)
    repeats: list[str] = []
    contradictions: list[str] = []
    for group in groups.values():
        if len({one.example.label for one in group}) > 1:
            contradictions += map(_shown, group)
        else:
            repeats += map(_shown, group[1:])
    advice = "decide on one label: nothing can be learned from them, and training leaves them out"
    yield from finding("contradicting labels", "error", contradictions, advice)
    yield from finding("duplicate", "warning", repeats, "training leaves them out; measuring counts each")

    counts = Counter(one.example.label for one in part.found if one.example.label)
    rare = [f"{label}: {count} examples" for label, count in sorted(counts.items()) if count < FEW]
    yield from finding("label with few examples", "warning", rare, "collect more, or train with the few-shot recipe")


def _between(parts: Sequence[Part]) -> Iterator[Finding]:
    """Texts that two parts share, with the same label or another, and labels that the first part does not teach."""
    for one, other in combinations(parts, 2):
        labels: dict[str, set[str]] = defaultdict(set)
        for located in one.found:
            labels[normalised(located.example.text)].add(located.example.label)
        same, contrary = [], []
        for located in other.found:
            known = labels.get(normalised(located.example.text), set())
            if located.example.label in known:
                same.append(_shown(located))
            elif known:
                contrary.append(_shown(located) + f", and in {Path(one.name).name} {', '.join(sorted(known))}")
        names = (one.name, other.name)
        if same:
            yield _finding("leak", "error", names, same, "remove them from one part: the second measures memory")
        if contrary:
            yield _finding("leak with another label", "error", names, contrary, "decide on one label, in one part")
    taught = {one.example.label for one in parts[0].found} if parts else set()
    for part in parts[1:]:
        unknown = Counter(one.example.label for one in part.found if one.example.label not in taught)
        rows = [f"{label}: {count} examples" for label, count in sorted(unknown.items())]
        if rows:
            advice = "a model that learns from the first part can never give them"
            yield _finding("label the first part lacks", "error", (parts[0].name, part.name), rows, advice)


def _near(parts: Sequence[Part], alike: float, progress: Progress | None) -> Iterator[Finding]:
    """Near-duplicates within a part that disagree on the label, and between parts; the identical are reported above."""
    rows = [(number, one) for number, part in enumerate(parts) for one in part.found]
    texts = [one.example.text for _, one in rows]
    keys = [normalised(text) for text in texts]
    best: dict[tuple[int, int, bool], dict[int, Pair]] = defaultdict(dict)  # by parts and agreement: by second row
    for pair in near_duplicates(texts, alike, progress):
        if keys[pair.first] == keys[pair.second]:
            continue
        (first, one), (second, other) = rows[pair.first], rows[pair.second]
        closest = best[first, second, one.example.label == other.example.label]
        if pair.second not in closest or closest[pair.second].similarity < pair.similarity:
            closest[pair.second] = pair
    for (first, second, agree), closest in sorted(best.items()):
        shown = [
            f"{_shown(rows[pair.second][1])}; {pair.similarity:.2f} like {_shown(rows[pair.first][1])}"
            for pair in sorted(closest.values(), key=lambda pair: -pair.similarity)
        ]
        if first != second:
            kind = "near leak" if agree else "near leak with another label"
            advice = "figures on the second part flatter: keep what is alike in one part"
            yield _finding(kind, "warning", (parts[first].name, parts[second].name), shown, advice)
        elif agree:
            advice = "harmless in training; a random split of this part would leak"
            yield _finding("near-duplicate", "warning", (parts[first].name,), shown, advice)
        else:
            yield _finding(
                "near-duplicate with another label", "warning", (parts[first].name,), shown, "read the labels"
            )


def _finding(kind: str, level: Level, parts: tuple[str, ...], rows: Sequence[str], advice: str) -> Finding:
    return Finding(kind=kind, level=level, parts=parts, count=len(rows), advice=advice, examples=tuple(rows[:SHOWN]))


def _shown(one: Located) -> str:
    text = " ".join(one.example.text.split())
    short = text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
    return f"{Path(one.where).name} [{one.example.label}] {short}"
