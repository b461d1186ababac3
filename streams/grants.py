"""What each job needs the broker to allow, and nothing more: the list behind `streamgauge acls` and the worker's start.

Kafka lets whoever may READ or WRITE a topic, or READ a group, DESCRIBE it too; it lets whoever may WRITE any topic
produce idempotently (from Kafka 3.0 on), so no grant on the cluster is needed.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]  # public, but not said so

from streams.exits import AccessRefused, BrokerUnavailable
from streams.refusals import not_allowed, who
from streams.settings import Settings
from streams.topics import connect, is_embedded, wanted_topics

Answers = Mapping[str, "Future[Any]"]
Role = Literal["worker", "topics", "replay", "dead-letters"]
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
}
ANSWER_LIMIT_S, _ATTEMPT_S, _PAUSE_S = 60.0, 15.0, 0.2


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
        return [reader, *letters, *(Grant("topic", name, "Write") for name in (*rejects, *inputs, *observed))]
    outputs = [names.predictions, names.alerts, names.routes, names.review, *rejects]
    group = settings.broker.group
    both = [*observed, names.surge_state] if observed else []
    owners = [Grant("transactional-id", f"{group}.{names.surge_state}.", "Write", prefixed=True)] if both else []
    return [
        Grant("group", group, "Read"),
        *(Grant("topic", name, "Read") for name in (*inputs, *both)),
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
        missing, absent = _examine(admin, wanted, topics)
        if missing:
            raise _refused(missing, settings)
    if absent:
        raise MissingTopics(f"topics missing: {', '.join(absent)}; run: streamgauge topics create")


class MissingTopics(ValueError):
    """Topics that a role needs and the cluster does not have; the message names them and what to do."""


def missing_grants(admin: AdminClient, wanted: Iterable[Grant]) -> list[Grant]:
    """Those that the broker does not give to who `admin` is. A broker that does not tell is taken to allow."""
    wanted = list(wanted)
    return _examine(admin, wanted, list(dict.fromkeys(one.name for one in wanted if one.kind == "topic")))[0]


def _examine(admin: AdminClient, wanted: list[Grant], topics: list[str]) -> tuple[list[Grant], list[str]]:
    """What is not allowed, and which topics are not there."""
    allowed: dict[tuple[str, str], set[AclOperation] | None] = {}  # None: not there, or it does not tell
    absent = []
    for name, answer in asked(
        lambda: admin.describe_topics(
            TopicCollection(topics), include_authorized_operations=True, request_timeout=_ATTEMPT_S
        )
    ).items():
        if _code(answer) == KafkaError.UNKNOWN_TOPIC_OR_PART:
            absent.append(name)
        allowed["topic", name] = told(answer, KafkaError.TOPIC_AUTHORIZATION_FAILED, f"topic {name}")
    for name in dict.fromkeys(grant.name for grant in wanted if grant.kind == "group"):
        (answer,) = asked(partial(_describe_group, admin, name)).values()
        allowed["group", name] = told(answer, KafkaError.GROUP_AUTHORIZATION_FAILED, f"group {name}")
    missing = [
        grant
        for grant in wanted  # of transactional ids the broker tells nothing
        if (known := allowed.get((grant.kind, grant.name))) is not None and OPERATIONS[grant.operation] not in known
    ]
    return missing, absent


def _describe_group(admin: AdminClient, name: str) -> Answers:
    return admin.describe_consumer_groups([name], include_authorized_operations=True, request_timeout=_ATTEMPT_S)


def asked(ask: Callable[[], Answers], limit_s: float = ANSWER_LIMIT_S) -> Answers:
    """Ask until the broker has an answer for each, or the limit has passed."""
    deadline_s = time.monotonic() + limit_s
    while True:
        answers = ask()
        if _NOT_YET.isdisjoint({_code(one) for one in answers.values()}) or time.monotonic() >= deadline_s:
            return answers
        time.sleep(_PAUSE_S)


def _code(answer: Future[Any]) -> int | None:
    """The error that an answer is, once it is there."""
    error = answer.exception()
    return error.args[0].code() if isinstance(error, KafkaException) else None


def told(answer: Future[Any], refused: int, of: str) -> set[AclOperation] | None:
    """What is allowed; None where the broker keeps no rights. Raises BrokerUnavailable where it did not answer."""
    code = _code(answer)
    if code is None:
        return set(answer.result().authorized_operations or ()) or None
    if code == refused:
        return set()
    if code in _NOT_YET:
        text = answer.exception().args[0].str()  # type: ignore[union-attr]  # it has one, and of this kind
        raise BrokerUnavailable(f"the broker does not say what is allowed on {of}: {text}")
    return None


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
