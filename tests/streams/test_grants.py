from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]  # public, but not said so
from typer.testing import CliRunner

from streams.cli import app
from streams.exits import AccessRefused, BrokerUnavailable
from streams.grants import ROLES, Grant, Told, allows, asked, commands, grants
from streams.refusals import refusal_in
from streams.settings import load_settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SHIPPED = load_settings(env={})


def test_a_worker_reads_its_inputs_and_writes_its_outputs_and_no_more() -> None:
    found = set(grants(SHIPPED, "worker"))
    assert Grant("topic", "news", "Read") in found
    assert Grant("topic", "predictions", "Write") in found
    assert {grant.name for grant in found if grant.kind == "group"} == {"streamgauge"}
    assert {one.name for one in found if one.operation == "Write"}.isdisjoint({"news", "chat", "transactions"})
    assert {grant.operation for grant in found} == {"Read", "Write"}


def test_without_surges_their_topics_are_left_out() -> None:
    news = SHIPPED.sources["news"].model_copy(update={"entities": None})
    settings = SHIPPED.model_copy(update={"sources": SHIPPED.sources | {"news": news}})
    assert not {"observations", "surge-state"} & {grant.name for grant in grants(settings, "worker")}


PREFIX = "all that begin with "


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_lists_exactly_the_rights_of_each_role(role: str) -> None:
    """Rows are `| role | operations | kind: names |`; the source topics are called that, a prefix `all that begin`."""
    inputs = [source.topic for source in SHIPPED.active_sources.values()]
    rows = re.findall(rf"^\| `{role}` \| ([\w, ]+) \| (topic|group|transactional-id): (.+) \|$", README, re.MULTILINE)
    listed = [
        Grant(kind, name.removeprefix(PREFIX).strip("`"), operation, name.startswith(PREFIX))
        for operations, kind, names in rows
        for operation in operations.split(", ")
        for entry in names.split(", ")
        for name in (inputs if entry == "your source topics" else [entry])
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(grants(SHIPPED, next(one for one in ROLES if one == role)))


def test_the_commands_are_for_a_shell() -> None:
    lines = commands([Grant("topic", "news", "Read"), Grant("topic", "news", "Describe")], "k:9093", "User:O'Hara")
    assert [shlex.split(line) for line in lines] == [
        [
            *("kafka-acls.sh", "--bootstrap-server", "k:9093", "--add", "--allow-principal", "User:O'Hara"),
            *("--operation", "Read", "--operation", "Describe", "--topic", "news"),
        ]
    ]


def test_the_command_prints_a_line_for_each_resource() -> None:
    done = CliRunner().invoke(app, ["acls", "worker", "--principal", "User:desk"])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == len({(one.kind, one.name) for one in grants(SHIPPED, "worker")})
    assert "--allow-principal User:desk --operation Read --group streamgauge" in done.stdout
    assert CliRunner().invoke(app, ["acls", "king"]).exit_code == 2


def test_a_refusal_is_found_among_the_causes_of_an_error() -> None:
    refused = AccessRefused("no")
    outer = RuntimeError("faust crashed")
    outer.__cause__ = ValueError("because")
    outer.__cause__.__context__ = refused
    assert refusal_in(outer, SHIPPED.broker) is refused
    away = BrokerUnavailable("away")
    assert refusal_in(away, SHIPPED.broker) is away
    assert refusal_in(RuntimeError("something else"), SHIPPED.broker) is None
    assert refusal_in(None, SHIPPED.broker) is None
    endless = RuntimeError("one")
    endless.__cause__ = RuntimeError("two")
    endless.__cause__.__cause__ = endless
    assert refusal_in(endless, SHIPPED.broker) is None


@pytest.mark.parametrize(
    "code", [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED]
)
def test_what_librdkafka_is_refused_names_who_and_where(code: int) -> None:
    found = refusal_in(KafkaException(KafkaError(code)), SHIPPED.broker)
    assert isinstance(found, AccessRefused)
    assert "localhost:9092 refuses a client without a name" in str(found)


@pytest.mark.parametrize(
    "not_yet", [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError._TIMED_OUT]
)
def test_a_broker_that_cannot_say_yet_is_asked_again(not_yet: int) -> None:
    answers: Iterator[Told] = iter([not_yet, {AclOperation.READ}])
    assert asked(lambda: {"streamgauge": next(answers)}) == {"streamgauge": {AclOperation.READ}}


def test_a_broker_that_never_says_is_no_broker() -> None:
    """What is not known must not count as allowed: the worker would end at its first fetch, and say less."""
    with pytest.raises(BrokerUnavailable, match=r"on streamgauge: \S"):
        asked(lambda: {"news": None, "streamgauge": KafkaError.NOT_COORDINATOR}, limit_s=0.0)


@pytest.mark.parametrize(
    ("told", "allowed"),
    [
        ({AclOperation.READ, AclOperation.DESCRIBE}, True),
        ({AclOperation.DESCRIBE}, False),
        (None, True),  # a broker without access control
        (KafkaError.GROUP_AUTHORIZATION_FAILED, False),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, True),  # its own message
    ],
)
def test_what_a_broker_says_allows_to_read_or_does_not(told: Told, allowed: bool) -> None:
    assert allows(told, "Read") is allowed
