"""The index of predictions brought up to date from their topic."""

from __future__ import annotations

from collections.abc import Callable

from models.learning.store import ReadUpTo
from streams.events import Coordinates
from streams.learning.prediction_index import Known, PredictionIndex, prediction_of
from streams.reading import TopicReader
from streams.settings import Settings

ROWS_AT_ONCE = 5000

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


def follow_predictions(
    settings: Settings, index: PredictionIndex, group: str, now_s: float, progress: Progress
) -> None:
    """Read the topic of predictions on to its end; of one much longer than what the index holds only the end.

    Raises:
        BrokerUnavailable: it cannot be read.
    """
    name = settings.topics.predictions
    reader = TopicReader(settings, name, group)
    before, most = index.read_up_to(), settings.feedback.index_rows
    ranges = {
        part: (max(low, high - most, before.start(name, reader.id, part) if before else 0), high)
        for part, (low, high) in reader.ranges.items()
    }
    total = sum(high - low for low, high in ranges.values())
    offsets, rows, count = {part: low for part, (low, _) in ranges.items()}, list[Known](), 0
    for message in reader.messages(ranges):
        at = Coordinates.of(message)
        offsets[at.partition], count = at.offset + 1, count + 1
        if (known := prediction_of(message)) is not None:
            rows.append(known)
        if len(rows) >= ROWS_AT_ONCE:
            index.remember(rows, ReadUpTo(topic=name, topic_id=reader.id, offsets=offsets))
            rows = []
            progress("predictions", count, total)
    ends = {part: max(low, high) for part, (low, high) in ranges.items()}
    index.remember(rows, ReadUpTo(topic=name, topic_id=reader.id, offsets=ends))
    index.forget_before(now_s - settings.topics.retention_hours * 3600)  # the events are not kept for longer
