"""librdkafka's in-memory cluster, from the confluent-kafka wheel: real Kafka protocol over TCP on loopback.

It starts in milliseconds, keeps everything in memory and forgets it: for the demo and fast tests only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka

from streams.broker import BrokerError

RD_KAFKA_PRODUCER = 0  # from rdkafka.h


@dataclass(frozen=True)
class EmbeddedBroker:
    """A running embedded broker, reachable at `bootstrap`."""

    bootstrap: str


@contextmanager
def embedded_broker(topics: Mapping[str, int]) -> Iterator[EmbeddedBroker]:
    """Run librdkafka's in-memory cluster of one broker.

    Args:
        topics: name -> partitions. Any other topic appears at its first use, with four partitions.

    Raises:
        BrokerError: when the installed confluent-kafka does not carry the cluster, or a topic is refused.
    """
    library = _librdkafka()
    message = ctypes.create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(conf, b"log_level", b"3", message, len(message))  # no warning that it has no address
    handle = library.rd_kafka_new(RD_KAFKA_PRODUCER, conf, message, len(message))
    if not handle:
        raise BrokerError(f"the embedded broker did not start: {message.value.decode(errors='replace')}")
    try:
        cluster = library.rd_kafka_mock_cluster_new(handle, 1)
        if not cluster:
            raise BrokerError("the embedded broker did not start: librdkafka made no cluster")
        try:
            library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
            for name, partitions in topics.items():
                if partitions < 1 or library.rd_kafka_mock_topic_create(cluster, name.encode(), partitions, 1):
                    raise BrokerError(f"the embedded broker refuses the topic {name!r} with {partitions} partitions")
            yield EmbeddedBroker(library.rd_kafka_mock_cluster_bootstraps(cluster).decode())
        finally:
            library.rd_kafka_mock_cluster_destroy(cluster)
    finally:
        library.rd_kafka_destroy(handle)


def _librdkafka() -> ctypes.CDLL:
    package = Path(confluent_kafka.__file__).parent
    places = (package.parent / "confluent_kafka.libs", package / ".dylibs")
    found = [path for place in places for path in sorted(place.glob("librdkafka*"))]
    remedy = 'confluent-kafka 2.12 and newer carry it: pip install --only-binary :all: "confluent-kafka>=2.12"'
    if not found:
        raise BrokerError(f"no librdkafka in {places[0]} or {places[1]}; {remedy}")
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    try:
        library = ctypes.CDLL(str(found[0]))  # the copy the Python client has loaded already
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise BrokerError(f"{found[0]} has no in-memory cluster ({error}); {remedy}") from None
    return library
