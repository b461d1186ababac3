"""What keeps one annotator or one source from teaching a model what they like.

Two bounds that need no opinion on who is right: labels that come faster than anybody reads wait for a person, and of
what a model learns as one label only a set share comes from one annotator or one source. The first trusts the times
that annotators state; the second trusts nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from models.learning.curation import Curated, CurationSettings, SetAside
from models.learning.opinions import Opinion


def bursts(opinions: Sequence[Opinion], settings: CurationSettings) -> dict[int, str]:
    """The rows of all opinions that are part of a burst, and a sentence on each: who, how many, in which time.

    A burst is more than `burst_annotator` labels of one annotator, or `burst_source` on texts of one source, within
    `burst_window_s`; trusted annotators have none and count in none.
    """
    rows = [row for row, opinion in enumerate(opinions) if opinion.annotator not in settings.trusted]
    found: dict[int, str] = {}
    for kind, most, name_of in (
        ("annotator", settings.burst_annotator, lambda row: opinions[row].annotator),
        ("source", settings.burst_source, lambda row: opinions[row].source),
    ):
        for name, its in _grouped(rows, name_of).items():
            for row in _crowded(its, [opinions[row].labelled_at_s for row in its], most, settings.burst_window_s):
                said = f"{kind} {name!r}: more than {most} labels within {settings.burst_window_s:g} s"
                found.setdefault(row, said)
    return found


def _grouped(rows: Iterable[int], name_of: Callable[[int], str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        groups[name_of(row)].append(row)
    return groups


def _crowded(rows: Sequence[int], times_s: Sequence[float], most: int, window_s: float) -> set[int]:
    """The rows in any window of time that holds more than `most`."""
    order = sorted(range(len(rows)), key=lambda place: times_s[place])
    crowded: set[int] = set()
    marked = 0  # places of the order before it are done
    for last in range(most, len(order)):
        first = last - most
        if times_s[order[last]] - times_s[order[first]] <= window_s:
            crowded.update(rows[place] for place in order[max(first, marked) : last + 1])
            marked = last + 1
    return crowded


def within_shares(
    rows: Sequence[Curated], taught: Mapping[str, int], settings: CurationSettings
) -> tuple[list[Curated], list[SetAside]]:
    """The rows of which no annotator and no source has more than a share of any label, and those that were too many.

    A label's texts are those of it that remain and the `taught` that a model learns from anyway. A text with several
    annotators counts for each as an equal part. Of what is too much goes first what one annotator says alone, then what
    is least certain. `free_texts` remain whatever the share, so that a new label can begin.
    """
    kept, aside = list(rows), list[SetAside]()
    while True:
        counts = Counter(row.label for row in kept)
        gone: dict[str, str] = {}
        for label in sorted(counts):
            its = sorted((row for row in kept if row.label == label), key=_firmness)
            texts = counts[label] + taught.get(label, 0)
            gone |= _beyond(its, texts, settings)
        if not gone:
            return kept, aside
        aside += [SetAside(row.key, "share", gone[row.key]) for row in kept if row.key in gone]
        kept = [row for row in kept if row.key not in gone]


def _firmness(row: Curated) -> tuple[int, float, float, str]:
    return -len(row.annotators), -row.weight, row.event_time_s, row.key


def _beyond(rows: Sequence[Curated], texts: int, settings: CurationSettings) -> dict[str, str]:
    """Of one label's rows, the firmest first: the keys of those beyond a share of its texts, and whose share."""
    most_of_annotator = max(settings.free_texts, settings.annotator_share * texts)
    most_of_source = max(settings.free_texts, settings.source_share * texts)
    of_annotator: dict[str, float] = defaultdict(float)
    of_source: dict[str, int] = defaultdict(int)
    gone = {}
    for row in rows:
        part = 1 / len(row.annotators)
        held = [name for name in row.annotators if name not in settings.trusted]
        full = [name for name in held if of_annotator[name] + part > most_of_annotator + 1e-9]
        if full:
            said = f"annotator {full[0]!r}: more than {most_of_annotator:.0f} of {texts} texts of {row.label!r}"
            gone[row.key] = said
        elif of_source[row.source] + 1 > most_of_source:
            gone[row.key] = f"source {row.source!r}: more than {most_of_source:.0f} of {texts} texts of {row.label!r}"
        else:
            for name in held:
                of_annotator[name] += part
            of_source[row.source] += 1
    return gone
