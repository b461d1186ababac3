"""The broker of a benchmark, and fresh topics on it for every run."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, but not said so

from streams.broker import BrokerError, KafkaBroker, kafka_version
from streams.embedded import embedded_broker
from streams.exits import BrokerUnavailable

REQUEST_S = 30.0
KAFKA_PARTITIONS, EMBEDDED_PARTITIONS = 4, 16
EMBEDDED_PARTITION_BYTES = 5 << 20  # what librdkafka's in-memory cluster keeps of a partition
_USABLE = 0.6  # of that, as outputs do not spread evenly
_OUTPUT_BYTES = {"stream": 512, "model": 3072}  # a prediction with 3 labels; with 80


@dataclass(frozen=True)
class Field:
    """Where one run takes place. `name` is the run's own, and its consumer group's."""

    bootstrap: str
    name: str
    partitions: int

    @property
    def input_topic(self) -> str:
        """Where the events are."""
        return f"{self.name}-in"

    @property
    def output_topic(self) -> str:
        """Where the predictions go."""
        return f"{self.name}-out"

    def side_topic(self, what: str) -> str:
        """One of the topics that a worker wants besides."""
        return f"{self.name}-{what}"


class Arena(Protocol):
    """A broker to run on. `appends_time`: records carry the broker's time of arrival where a topic asks for it."""

    name: str
    appends_time: bool

    def field(self, side_topics: tuple[str, ...]) -> contextlib.AbstractContextManager[Field]:
        """Fresh topics, gone afterwards."""
        ...

    def most_events(self, kind: str, mean_event_bytes: float) -> int | None:
        """How many events a run may have; None without bound."""
        ...


class Embedded:
    """librdkafka's in-memory cluster, a new one for each run: it cannot delete, and keeps 5 MiB a partition."""

    name = "embedded"
    appends_time = False  # it keeps the producer's time stamp, whatever is asked of it

    @contextlib.contextmanager
    def field(self, side_topics: tuple[str, ...]) -> Iterator[Field]:
        """A new cluster."""
        name = _run_name()
        there = Field("", name, EMBEDDED_PARTITIONS)
        topics = {there.input_topic: EMBEDDED_PARTITIONS, there.output_topic: EMBEDDED_PARTITIONS}
        with embedded_broker(topics | {there.side_topic(one): 1 for one in side_topics}) as broker:
            yield Field(broker.bootstrap, name, EMBEDDED_PARTITIONS)

    def most_events(self, kind: str, mean_event_bytes: float) -> int | None:
        """What its memory holds of the larger of input and output."""
        largest = max(mean_event_bytes + 64, _OUTPUT_BYTES[kind])
        return int(EMBEDDED_PARTITIONS * EMBEDDED_PARTITION_BYTES * _USABLE / largest)


class Kafka:
    """A real cluster at an address."""

    appends_time = True

    def __init__(self, bootstrap: str, name: str) -> None:
        self.name = name
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    @contextlib.contextmanager
    def field(self, side_topics: tuple[str, ...]) -> Iterator[Field]:
        """New topics on the cluster; raises BrokerUnavailable."""
        there = Field(self._bootstrap, _run_name(), KAFKA_PARTITIONS)
        topics = [
            NewTopic(there.input_topic, there.partitions, 1),
            NewTopic(there.output_topic, there.partitions, 1, config={"message.timestamp.type": "LogAppendTime"}),
            *(NewTopic(there.side_topic(one), 1, 1) for one in side_topics),
        ]
        try:
            for made in self._admin.create_topics(topics, request_timeout=REQUEST_S).values():
                made.result()
            yield there
        except KafkaException as error:
            raise BrokerUnavailable(f"{self._bootstrap}: {error.args[0].str()}") from None
        finally:
            with contextlib.suppress(KafkaException):
                names = [one.topic for one in topics]
                for gone in self._admin.delete_topics(names, request_timeout=REQUEST_S).values():
                    gone.result()

    def most_events(self, kind: str, mean_event_bytes: float) -> int | None:
        """No bound."""
        return None


@contextlib.contextmanager
def arena(broker: str) -> Iterator[Arena]:
    """`embedded`, `kafka` (started here, on this machine) or the address of a cluster.

    Raises:
        BrokerError: no such kind, or it does not start.
    """
    if broker == "embedded":
        yield Embedded()
    elif broker == "kafka":
        with KafkaBroker() as started:
            yield Kafka(started.bootstrap, f"kafka {kafka_version()}")
    elif ":" in broker:
        yield Kafka(broker, broker)
    else:
        raise BrokerError(f"--broker {broker}: no such broker; allowed: embedded, kafka, HOST:PORT")


def _run_name() -> str:
    return f"bench-{uuid.uuid4().hex[:10]}"
