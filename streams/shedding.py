"""What is set aside unscored, by a policy that somebody has written down, and never otherwise. Pure.

A source with `shed_after_s` gives up on scoring events that have waited longer: each goes whole to the topic `shed`, in
the envelope of a dead letter, acknowledged before its offset is committed. Without the setting everything waits.
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.events import Event, Rejected
from streams.intake import Record


def shed(
    records: Sequence[Record], verdicts: Sequence[Event | Rejected], after_s: float, now_s: float
) -> list[Event | Rejected]:
    """The verdicts on a slice's records, with those events set aside that were in the topic for longer than `after_s`.

    The broker's time stamp counts; a record without one is not shed.
    """
    before_ms = (now_s - after_s) * 1000
    return [
        _set_aside(verdict, now_s - record.timestamp / 1000, after_s)
        if isinstance(verdict, Event) and record.timestamp and 0 < record.timestamp < before_ms
        else verdict
        for record, verdict in zip(records, verdicts, strict=True)
    ]


def _set_aside(event: Event, waited_s: float, after_s: float) -> Rejected:
    message = f"{event.at}: waited {waited_s:.0f} s, longer than sources.{event.source}.shed_after_s = {after_s:g}"
    return Rejected(event.at, "shed", "WaitedTooLong", message)
