from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streams.embedded import EmbeddedBroker
from streams.events import Coordinates, Event, Rejected
from streams.learning.source_texts import NEARBY, Found, SourceTexts
from tests.streams.learning.world import World, settings_for

NOW_S = 1_795_500_000.0


def test_events_are_found_where_they_lie_near_and_far(
    embedded: EmbeddedBroker, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    world = World(settings_for(embedded.bootstrap, tmp_path, unique("texts")))
    topic = world.settings.sources["transactions"].topic
    count = 2 * NEARBY + 10
    for part in (0, 3):
        world.send(
            topic, [{"id": f"{part}-{number}", "text": f"text {part}-{number}"} for number in range(count)], part
        )
    world.send(topic, [b"no event"], 3)
    there = [Coordinates(topic, part, offset) for part in (3, 0) for offset in (0, 1, 7, NEARBY, 2 * NEARBY + 9)]
    there += [Coordinates(topic, 0, 3)]  # in no order
    broken, beyond = Coordinates(topic, 3, count), Coordinates(topic, 0, count)
    nowhere = [Coordinates(topic, 99, 0), Coordinates("elsewhere", 0, 0)]
    seen = list[None]()
    with SourceTexts(world.settings, unique("group"), lambda: NOW_S) as texts:
        assert texts.find([]) == {}
        found = texts.find([*there, broken, beyond, *nowhere], lambda: seen.append(None))
        again: dict[Coordinates, Found] = texts.find(there[:1])
    for at in there:
        event = found.pop(at)
        assert isinstance(event, Event) and event.text == f"text {at.partition}-{at.offset}" and event.at == at
    rejected = found.pop(broken)
    assert isinstance(rejected, Rejected) and rejected.error == "NotJson"
    assert found == {beyond: "not yet"} | dict.fromkeys(nowhere, "gone")
    assert len(seen) == len(there) + 2
    assert again.keys() == set(there[:1])
