"""The topics Streamgauge needs: what they should be, making them, and what is there.

Making them is idempotent and never changes a topic that exists: adding partitions to a topic with data would move keys
to other partitions, so it is for a person to decide.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but exported without saying so
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
)

from streams.exits import BrokerUnavailable
from streams.publishing import MAX_MESSAGE_BYTES
from streams.refusals import connection_refusal
from streams.security import librdkafka_config
from streams.settings import Settings

CONNECT_TIMEOUT_S = 5.0
ATTEMPT_S = 0.5
REQUEST_TIMEOUT_S = 30.0
HOUR_MS = 3_600_000
KAFKA_MAX_MESSAGE_BYTES = 1_048_588  # the broker's own default
ENVELOPE_BYTES = 64 << 10  # key, headers and framing around the largest event
_EMBEDDED_CLUSTER = "mockCluster"  # how the cluster id of librdkafka's in-memory broker begins


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it should be. `config` holds Kafka's topic settings."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]

    @property
    def compacted(self) -> bool:
        """Whether it keeps the last value of each key instead of a span of time."""
        return self.config["cleanup.policy"] == "compact"


@dataclass(frozen=True)
class TopicOutcome:
    """What became of one wanted topic; `todo` says what a person should do, if anything."""

    name: str
    state: Literal["created", "exists", "too-few-partitions", "at-first-use", "failed"]
    detail: str
    todo: str = ""


@dataclass(frozen=True)
class TopicState:
    """A topic as it is. `config` is empty where the broker does not tell."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def compacted(self) -> bool:
        """Whether it keeps the last value of each key."""
        return "compact" in self.config.get("cleanup.policy", "")

    @property
    def retention_hours(self) -> float | None:
        """How long it keeps its records; None for ever, when compacted, or not known."""
        milliseconds = int(self.config.get("retention.ms", -1))
        return None if milliseconds < 0 or self.compacted else milliseconds / HOUR_MS


def wanted_topics(settings: Settings) -> list[TopicSpec]:
    """Every topic a worker with these settings reads or writes, each once: inputs first, then outputs."""
    names = settings.topics
    common = {"min.insync.replicas": "2" if names.replication >= 3 else "1"}
    kept = common | {"cleanup.policy": "delete", "retention.ms": str(names.retention_hours * HOUR_MS)}
    last = common | {"cleanup.policy": "compact"}
    largest = max(KAFKA_MAX_MESSAGE_BYTES, settings.intake.max_event_bytes + ENVELOPE_BYTES)
    spec = functools.partial(TopicSpec, partitions=names.partitions, replication=names.replication)
    letters = (names.dead_letters, names.shed) if settings.sheds else (names.dead_letters,)
    specs = [
        *(spec(s.topic, config=kept | {"max.message.bytes": str(largest)}) for s in settings.active_sources.values()),
        *(
            spec(name, config=kept)
            for name in (
                names.feedback,
                names.predictions,
                names.alerts,
                names.routes,
                names.review,
                names.shadow,
                names.drift,
            )
        ),
        *(spec(name, config=kept | {"max.message.bytes": str(MAX_MESSAGE_BYTES)}) for name in letters),
        spec(names.releases, partitions=1, config=last),  # a handful of records whose order matters
        # The detector writes the state of a partition to the partition of the same number: counts must be equal.
        spec(names.observations, config=kept),
        # A recovery reads what is not compacted yet, and that is a segment at least: small ones.
        spec(names.surge_state, config=last | {"segment.bytes": str(64 << 20), "min.cleanable.dirty.ratio": "0.1"}),
    ]
    return list({spec.name: spec for spec in reversed(specs)}.values())[::-1]


def connect(settings: Settings, timeout_s: float = CONNECT_TIMEOUT_S) -> tuple[AdminClient, ClusterMetadata]:
    """An administration client and what the cluster says of itself.

    Raises:
        BrokerUnavailable: nobody answers; with the address and what librdkafka met.
        AccessRefused: somebody does, but certificate, user, password or token are not accepted.
        SecurityError: unusable credentials.
    """
    met: list[KafkaError] = []
    config = librdkafka_config(settings.broker)
    config |= {"error_cb": met.append, "log_level": 0}
    admin = AdminClient(config)
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return admin, admin.list_topics(timeout=min(timeout_s, ATTEMPT_S))
        except KafkaException as error:
            admin.poll(0)  # delivers what the callback should know
            down = any(one.code() == KafkaError._ALL_BROKERS_DOWN for one in met)  # each was tried once
            refused = any(one.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) for one in met)
            if down or refused or time.monotonic() >= deadline:
                if refusal := connection_refusal(settings.broker, met):
                    raise refusal from None
                causes = [one.str() for one in met if one.code() != KafkaError._ALL_BROKERS_DOWN]
                if not causes and not settings.broker.authenticates:
                    causes = ["it may take connections, but not from who gives no broker.username and broker.mechanism"]
                raise BrokerUnavailable(
                    f"broker.bootstrap: {settings.broker.bootstrap} does not answer "
                    f"({causes[0] if causes else error.args[0].str()}); start Kafka there, or set broker.bootstrap"
                ) from None


def is_embedded(cluster: ClusterMetadata) -> bool:
    """Whether this is the embedded broker, which has no administration: nothing can be created or described."""
    return str(cluster.cluster_id).startswith(_EMBEDDED_CLUSTER)


def create_topics(settings: Settings) -> list[TopicOutcome]:
    """Make the wanted topics that are missing; one outcome each, in order.

    Raises BrokerUnavailable when the cluster cannot be reached, SecurityError for unusable credentials.
    """
    admin, cluster = connect(settings)
    specs = wanted_topics(settings)
    missing = [spec for spec in specs if spec.name not in cluster.topics]
    made: dict[str, TopicOutcome] = {}
    if is_embedded(cluster):
        detail = "the embedded broker makes topics at their first use, with four partitions and no settings"
        made = {spec.name: TopicOutcome(spec.name, "at-first-use", detail) for spec in missing}
    elif missing:
        requests = [NewTopic(s.name, s.partitions, s.replication, config=dict(s.config)) for s in missing]
        futures = admin.create_topics(requests, request_timeout=REQUEST_TIMEOUT_S)
        made = {spec.name: _created(spec, futures[spec.name].result, len(cluster.brokers)) for spec in missing}
        _await_visible(admin, {name for name, outcome in made.items() if outcome.state == "created"})
    return [made[spec.name] if spec.name in made else _existing(spec, cluster) for spec in specs]


def list_topics(settings: Settings) -> list[TopicState]:
    """The cluster's topics by name, without Kafka's own (`__...`); settings are left out where it does not tell.

    Raises BrokerUnavailable when the cluster cannot be reached, SecurityError for unusable credentials.
    """
    admin, cluster = connect(settings)
    return topic_states(admin, cluster)


def topic_states(admin: AdminClient, cluster: ClusterMetadata) -> list[TopicState]:
    """As `list_topics`, over a connection that is there."""
    names = sorted(name for name in cluster.topics if not name.startswith("__"))
    configs = {} if is_embedded(cluster) else _configs(admin, names)
    return [TopicState(name, *_shape(cluster, name), configs.get(name, {})) for name in names]


def _configs(admin: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    found = {}
    answers = admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S) if names else {}
    for resource, future in answers.items():
        try:
            entries = future.result()
        except KafkaException:
            continue  # this user may not describe it: its partitions are shown without its settings
        found[resource.name] = {key: entry.value for key, entry in entries.items() if entry.value is not None}
    return found


def _shape(cluster: ClusterMetadata, name: str) -> tuple[int, int]:
    partitions = cluster.topics[name].partitions
    return len(partitions), min((len(partition.replicas) for partition in partitions.values()), default=0)


def _existing(spec: TopicSpec, cluster: ClusterMetadata) -> TopicOutcome:
    partitions, replication = _shape(cluster, spec.name)
    detail = f"{partitions} partitions, replication {replication}; left as it is"
    if partitions >= spec.partitions:
        return TopicOutcome(spec.name, "exists", detail)
    todo = (
        f"{spec.name}: has {partitions} partitions, topics.partitions wants {spec.partitions}; lower the setting, or "
        "add partitions with kafka-topics.sh --alter while nothing is in flight (keys move to other partitions)"
    )
    return TopicOutcome(spec.name, "too-few-partitions", detail, todo)


def _await_visible(admin: AdminClient, names: set[str]) -> None:
    """The controller answers before its brokers know: wait until a worker started now would see the topics."""
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while not names <= set(admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics):
        if time.monotonic() >= deadline:
            raise BrokerUnavailable(f"made, but not shown after {REQUEST_TIMEOUT_S:g} s: {', '.join(names)}")
        time.sleep(0.05)


def _created(spec: TopicSpec, result: Callable[[], Any], brokers: int) -> TopicOutcome:
    try:
        result()
    except KafkaException as error:
        return _refused(spec, error.args[0], brokers)
    return TopicOutcome(spec.name, "created", f"{spec.partitions} partitions, replication {spec.replication}")


def _refused(spec: TopicSpec, error: KafkaError, brokers: int) -> TopicOutcome:
    code = error.code()
    if code == KafkaError.TOPIC_ALREADY_EXISTS:
        return TopicOutcome(spec.name, "exists", "made by someone else meanwhile; left as it is")
    todo = {
        KafkaError.INVALID_REPLICATION_FACTOR: f"set topics.replication to at most {brokers}, the number of brokers",
        KafkaError.TOPIC_AUTHORIZATION_FAILED: "give this user the right to CREATE the topic, or have it made for you",
        KafkaError.CLUSTER_AUTHORIZATION_FAILED: "give this user the right to CREATE topics, or have them made for you",
        KafkaError.POLICY_VIOLATION: "the cluster's policy forbids it: change the [topics] settings to what it allows",
    }.get(code, "see the broker's log, then run `streamgauge topics create` again: what exists is left as it is")
    return TopicOutcome(spec.name, "failed", f"{spec.name}: {error.str()}", f"{spec.name}: {todo}")
