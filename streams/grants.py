"""What each job needs the broker to allow, and nothing more: the list behind `streamgauge acls` and the worker's start.

Kafka lets whoever may READ or WRITE a topic, or READ a group, DESCRIBE it too; it lets whoever may WRITE any topic
produce idempotently (from Kafka 3.0 on), so no grant on the cluster is needed.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple, get_args

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]  # public, but not said so

from streams.exits import AccessRefused, BrokerUnavailable
from streams.refusals import not_allowed, who
from streams.security import librdkafka_config
from streams.settings import Settings
from streams.topics import connect, is_embedded, wanted_topics

Role = Literal["worker", "topics", "replay", "dead-letters", "releases", "judge", "feedback", "drift", "retrain"]
Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]
ROLES: tuple[Role, ...] = get_args(Role)
OPERATIONS: dict[str, AclOperation] = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
_NOT_YET = {  # a broker that has just started, or is busy, says one of these, or for once nothing
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
}
ANSWER_LIMIT_S, _ATTEMPT_S, _GROUP_ATTEMPT_S, _PAUSE_S = 60.0, 15.0, 3.0, 0.2


Told = set[AclOperation] | int | None  # what is allowed on a thing; an error's code; None: the broker does not tell


class Grant(NamedTuple):
    """One operation on one resource, or on all whose names begin so. `kind` as kafka-acls.sh calls it."""

    kind: Literal["topic", "group", "transactional-id"]
    name: str
    operation: Operation
    prefixed: bool = False


def grants(settings: Settings, role: Role) -> list[Grant]:
    """All that a role needs, in the order of the settings."""
    names = settings.topics
    inputs = [source.topic for source in settings.active_sources.values()]
    rejects = [names.dead_letters, names.shed] if settings.sheds else [names.dead_letters]
    observed = [names.observations] if settings.watches_surges else []
    if role == "topics":
        needs: tuple[Operation, ...] = ("Create", "Describe", "DescribeConfigs")
        return [Grant("topic", spec.name, one) for spec in wanted_topics(settings) for one in needs]
    if role == "replay":
        return [Grant("topic", name, "Write") for name in inputs]
    if role == "dead-letters":
        reader = Grant("group", f"{settings.broker.group}-dead-letters", "Describe")
        letters = [Grant("topic", name, "Read") for name in rejects]  # what was redriven is marked in the topic itself:
        back_to = (*rejects, *inputs, *observed, names.feedback)
        return [reader, *letters, *(Grant("topic", name, "Write") for name in back_to)]
    if role == "feedback":
        own = Grant("group", f"{settings.broker.group}-feedback", "Read")
        read = (Grant("topic", name, "Read") for name in (names.feedback, names.predictions, *inputs))
        return [own, *read, Grant("topic", names.dead_letters, "Write")]
    if role == "releases":
        return [Grant("topic", names.releases, "Read"), Grant("topic", names.releases, "Write")]
    if role == "judge":
        reader = Grant("group", f"{settings.broker.group}-judge", "Describe")  # nothing is committed
        judged = (names.shadow, names.review, names.predictions, names.dead_letters)
        return [reader, *(Grant("topic", name, "Read") for name in judged), *grants(settings, "releases")]
    if role == "retrain":
        alarms = [Grant("topic", names.drift, "Read"), Grant("topic", names.drift, "Write")]
        return [*grants(settings, "feedback"), *grants(settings, "releases"), *alarms]
    if role == "drift":
        reader = Grant("group", f"{settings.broker.group}-drift", "Describe")  # nothing is committed
        seen = [Grant("topic", name, "Read") for name in (names.predictions, names.releases, *inputs)]
        told = [Grant("topic", name, one) for one in ("Read", "Write") for name in (names.review, names.drift)]
        return [reader, *seen, *told]
    outputs = [names.predictions, names.alerts, names.routes, names.review, names.shadow, *rejects]
    group = settings.broker.group
    both = [*observed, names.surge_state] if observed else []
    owners = [Grant("transactional-id", f"{group}.{names.surge_state}.", "Write", prefixed=True)] if both else []
    return [
        Grant("group", group, "Read"),
        *(Grant("topic", name, "Read") for name in (*inputs, names.releases, *both)),
        *(Grant("topic", name, "Write") for name in (*outputs, *both)),
        *owners,
    ]


def commands(wanted: Iterable[Grant], bootstrap: str, principal: str) -> list[str]:
    """The lines for kafka-acls.sh, one for each resource; quoted for a shell."""
    operations: dict[tuple[str, str, bool], list[str]] = {}
    for grant in wanted:
        operations.setdefault((grant.kind, grant.name, grant.prefixed), []).append(grant.operation)
    start = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--add", "--allow-principal", principal]
    return [
        shlex.join([*start, *(part for one in found for part in ("--operation", one)), f"--{kind}", name, *pattern])
        for (kind, name, prefixed), found in operations.items()
        for pattern in [["--resource-pattern-type", "prefixed"] if prefixed else []]
    ]


def require_access(settings: Settings, wanted: list[Grant]) -> None:
    """Connect, and see that the topics are there and everything wanted is allowed.

    Raises:
        AccessRefused: not let in, or something is not allowed: all that is missing is named.
        BrokerUnavailable: nobody answers.
        SecurityError: unusable credentials.
        MissingTopics: topics are not there.
    """
    admin, cluster = connect(settings)
    topics = list(dict.fromkeys(grant.name for grant in wanted if grant.kind == "topic"))
    if is_embedded(cluster):  # it has no access control
        absent = [name for name in topics if name not in cluster.topics]
    else:
        missing, absent = _examine(settings, admin, wanted, topics)
        if missing:
            raise _refused(missing, settings)
    if absent:
        raise MissingTopics(f"topics missing: {', '.join(absent)}; run: streamgauge topics create")


class MissingTopics(ValueError):
    """Topics that a role needs and the cluster does not have; the message names them and what to do."""


def missing_grants(settings: Settings, admin: AdminClient, wanted: Iterable[Grant]) -> list[Grant]:
    """Those that the broker does not give to who `admin` is. A broker that does not tell is taken to allow."""
    wanted = list(wanted)
    return _examine(settings, admin, wanted, list(dict.fromkeys(one.name for one in wanted if one.kind == "topic")))[0]


def _examine(
    settings: Settings, admin: AdminClient, wanted: list[Grant], topics: list[str]
) -> tuple[list[Grant], list[str]]:
    """What is not allowed, and which topics are not there."""
    of_topics = asked(lambda: _of_topics(admin, topics))
    absent = [name for name, told in of_topics.items() if told == KafkaError.UNKNOWN_TOPIC_OR_PART]
    answers = {("topic", name): told for name, told in of_topics.items()}
    for name in dict.fromkeys(grant.name for grant in wanted if grant.kind == "group"):
        answers |= {
            ("group", name): told for name, told in asked(partial(_of_group, settings, name, topics[0])).items()
        }
    missing = [grant for grant in wanted if not allows(answers.get((grant.kind, grant.name)), grant.operation)]
    return missing, absent


def _of_topics(admin: AdminClient, topics: list[str]) -> dict[str, Told]:
    answers = admin.describe_topics(
        TopicCollection(topics), include_authorized_operations=True, request_timeout=_ATTEMPT_S
    )
    told: dict[str, Told] = {}
    for name, answer in answers.items():
        try:
            told[name] = set(answer.result().authorized_operations or ()) or None
        except KafkaException as error:
            told[name] = error.args[0].code()
    return told


def _of_group(settings: Settings, group: str, topic: str) -> dict[str, Told]:
    """Whether the group's offsets may be seen, which whoever may read the group may.

    Describing the group would tell more, but librdkafka ends the whole process when a request of its administration
    to a coordinator cannot be sent (librdkafka issue 4605): a worker must not ask so while brokers come and go.
    """
    consumer = Consumer(librdkafka_config(settings.broker) | {"group.id": group, "log_level": 0})
    try:
        consumer.committed([TopicPartition(topic, 0)], timeout=_GROUP_ATTEMPT_S)
        return {group: None}  # what is wrong with the topic is said of the topic
    except KafkaException as error:
        # Refused, it looks for the coordinator until the time is over, and says why in an event of its own.
        event = consumer.poll(0)
        why = event.error() if event is not None else None
        return {group: (why or error.args[0]).code()}
    finally:
        consumer.close()


def asked(ask: Callable[[], dict[str, Told]], limit_s: float = ANSWER_LIMIT_S) -> dict[str, Told]:
    """Ask until the broker has an answer for each.

    Raises:
        BrokerUnavailable: it has not within the limit. What is not known must not count as allowed.
    """
    deadline_s = time.monotonic() + limit_s
    while True:
        told = ask()
        unknown = next((name for name, one in told.items() if isinstance(one, int) and one in _NOT_YET), None)
        if unknown is None:
            return told
        if time.monotonic() >= deadline_s:
            raise BrokerUnavailable(f"the broker does not say what is allowed on {unknown}: {_words(told[unknown])}")
        time.sleep(_PAUSE_S)


def allows(told: Told, operation: Operation) -> bool:
    """Whether an answer allows an operation: None, and errors that are no refusals, are no evidence against it."""
    if isinstance(told, set):
        return OPERATIONS[operation] in told
    return told not in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


def _words(told: Told) -> str:
    return KafkaError(told).str() if isinstance(told, int) else ""


def _refused(missing: list[Grant], settings: Settings) -> AccessRefused:
    broker = settings.broker
    if len(missing) == 1:
        kind, name, operation, _ = missing[0]
        return not_allowed(f"{broker.bootstrap}: {who(broker)}", operation, kind, name)
    what = ", ".join(f"{one.operation} {one.kind} {one.name}" for one in missing)
    return AccessRefused(
        f"{broker.bootstrap}: {who(broker)} is not allowed to: {what}; have it allowed, `streamgauge acls` prints the "
        "kafka-acls.sh lines"
    )
