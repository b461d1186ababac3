import pytest
from confluent_kafka import Message, Producer, TopicPartition

from streams.embedded import EmbeddedBroker
from streams.events import Coordinates
from tests import whereabouts


def test_a_record_is_found_by_what_is_in_it(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Message] = []
    producer = Producer({"bootstrap.servers": embedded.bootstrap})
    topic = "whereabouts"
    for number in range(3):
        producer.produce(
            topic, b"same", str(number), partition=0, on_delivery=lambda _, message: reports.append(message)
        )
    assert producer.flush(30) == 0
    start = TopicPartition(topic, 0, 0)
    for report in reports:
        said = Coordinates.of(report)
        assert whereabouts.stored_at(report, embedded.bootstrap) == said
        assert whereabouts.searched(embedded.bootstrap, start, report.key(), report.value()) == said
    monkeypatch.setattr(whereabouts, "LOOK_S", 1.0)
    with pytest.raises(AssertionError, match="whereabouts/0: a record that was acknowledged is not there: b'9'"):
        whereabouts.searched(embedded.bootstrap, start, b"9", b"same")
