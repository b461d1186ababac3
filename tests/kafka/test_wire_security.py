"""The security of the wire on a real, secured Kafka: every way in works, loses nothing, and a refusal is one message.

The figures are of `EVENTS` events for each way; the ACLs are exactly those that `streamgauge acls` prints.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer

from streams.exits import AccessRefused
from streams.grants import Grant, Role, grants, require_access
from streams.learning.alarm_call import ask_for_labels, call
from streams.settings import load_settings
from streams.topics import create_topics, list_topics
from tests.kafka.harness import BAD, ROOT, Reader, event, send_events, start, stop
from tests.kafka.secured import (
    CLIENT_SECRET,
    PASSWORD,
    REAUTH_MS,
    USER,
    WAYS,
    Place,
    SecuredKafka,
    TokenEndpoint,
    place,
    secured_kafka,
    token_endpoint,
    way_in,
)
from tests.streams.learning.retraining import old_texts
from tests.streams.wire import committed, read_all

pytestmark = pytest.mark.kafka

EVENTS, BAD_EVENTS = 20_000, 200
WRONG = "not-the-" + PASSWORD
PARTITIONS = 4

Make = Callable[..., Place]


@pytest.fixture(scope="module")
def secured(runs_kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def endpoint(secured: SecuredKafka) -> Iterator[TokenEndpoint]:
    with token_endpoint(secured.issuer, secured.server_certificate) as running:
        yield running


@pytest.fixture
def make(
    secured: SecuredKafka,
    endpoint: TokenEndpoint,
    tiny_releases: dict[str, Path],
    tmp_path: Path,
    unique: Callable[[str], str],
) -> Make:
    """Makes settings for one of WAYS, with topics of the test's own: make("PLAIN", listener="REAUTH")."""

    def of(way: str, listener: str | None = None) -> Place:
        where, broker = way_in(secured, way, tmp_path, endpoint.url)
        address = secured.addresses[listener or where]
        return place(tmp_path / "streamgauge.toml", unique("wire"), address, broker, tiny_releases)

    return of


def as_anybody(one: Place, kafka: SecuredKafka) -> Place:
    """The same topics over the plain listener, where everything is allowed."""
    shipped = load_settings(env={}).broker
    plain = shipped.model_copy(update={"bootstrap": kafka.bootstrap, "group": one.settings.broker.group})
    return Place(one.settings.model_copy(update={"broker": plain}), one.file)


def make_topics(one: Place, kafka: SecuredKafka) -> None:
    assert {outcome.state for outcome in create_topics(as_anybody(one, kafka).settings)} == {"created"}


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    output: str
    seconds: float


def run(arguments: Sequence[str], one: Place, env: Mapping[str, str] | None = None) -> Done:
    """Run a command of the project to its end; it may not hang."""
    started_s = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STREAMGAUGE_CONFIG": str(one.file), **(env or {})}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=one.file.parent, env=environment, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    return Done(done.returncode, done.stdout + done.stderr, time.monotonic() - started_s)


@contextmanager
def worker(one: Place) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A supervised worker, and its log."""
    log = one.file.with_name("worker.log")
    process = start(["-m", "streams.cli", "worker", "--config", str(one.file)], {}, log)
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def secrets(folder: Path) -> list[str]:
    """What may be shown nowhere."""
    token = (folder / "token").read_text().strip()
    return [PASSWORD, CLIENT_SECRET, token, token.split(".")[2]]


def shows_no_secret(one: Place, *texts: str) -> bool:
    return not [secret for secret in secrets(one.file.parent) for text in texts if secret in text]


def arguments_of(pid: int) -> str:
    """The command lines of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "".join(Path(f"/proc/{one}/cmdline").read_text() for one in (pid, *children))


def read_to_the_end(reader: Reader, good: int, bad: int, process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait until so many events have each kind of end, the worker has ended, or the time is over."""
    end_s = time.monotonic() + timeout_s
    while len(reader.seen.predictions) < good or len(reader.seen.dead) < bad:
        if time.monotonic() > end_s or process.poll() is not None:
            return
        time.sleep(0.1)


def reader_of(one: Place, kafka: SecuredKafka) -> Reader:
    reader = Reader(kafka.bootstrap, one.settings.topics.predictions, one.settings.topics.dead_letters, PARTITIONS)
    reader.start()
    return reader


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_works_with_the_least_rights_and_loses_nothing(
    way: str, secured: SecuredKafka, make: Make, tmp_path: Path
) -> None:
    """All clients: replay's producer, administration, Faust's consumer, the worker's producer, state readers."""
    one = make(way)
    make_topics(one, secured)
    secured.allow({*grants(one.settings, "worker"), *grants(one.settings, "replay")})
    lines = [event(number) for number in range(EVENTS)] + [BAD[number % len(BAD)] for number in range(BAD_EVENTS)]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines))
    replay = ["streams.cli", "replay", str(tmp_path / "events.jsonl"), "--speed", "max", "--topic"]
    reader = reader_of(one, secured)
    with worker(one) as (process, log):
        started_s = time.monotonic()
        sent = run([*replay, one.settings.sources["news"].topic], one)
        assert sent.code == 0, sent.output
        read_to_the_end(reader, EVENTS, BAD_EVENTS, process, 180)
        seconds, arguments = time.monotonic() - started_s, arguments_of(process.pid)
        assert stop(process) == 0, log.read_text()
    reader.close()
    check = run(["streams.cli", "check"], one)
    lost = {f"e{number}" for number in range(EVENTS)} - reader.seen.predictions.keys()
    print(
        f"\n{way}: {EVENTS} events, {BAD_EVENTS} bad: lost {len(lost)}, dead letters {len(reader.seen.dead)}, "
        f"duplicates {reader.seen.duplicates()}, {seconds:.1f} s"
    )
    assert not lost
    assert len(reader.seen.dead) == BAD_EVENTS
    assert check.code == 0, check.output
    assert shows_no_secret(one, log.read_text(), sent.output, check.output, arguments)


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "OAUTHBEARER from an endpoint"])
def test_a_broker_that_cuts_sessions_loses_nothing(
    way: str, secured: SecuredKafka, endpoint: TokenEndpoint, make: Make
) -> None:
    """It cuts at the token's end, or after REAUTH_MS: aiokafka cannot authenticate again, so it has to come back."""
    one = make(way, listener="REAUTH")
    make_topics(one, secured)
    secured.allow(grants(one.settings, "worker"))
    topics = [source.topic for source in one.settings.active_sources.values()]
    seconds, answered, endpoint.lifetime_s = 6 * REAUTH_MS / 1000, endpoint.answered, 6.0
    reader = reader_of(one, secured)
    try:
        with worker(one) as (process, log):
            sent = send_events(secured.bootstrap, topics, EVENTS, 0.01, seconds, seed=5)
            reader.wait_for(sent, 120)
            assert stop(process) == 0, log.read_text()
    finally:
        endpoint.lifetime_s = 3600
    reader.close()
    lost = set(sent.good.values()) - reader.seen.predictions.keys()
    print(
        f"\n{way}, sessions of {REAUTH_MS / 1000:g} s, {seconds:g} s: {EVENTS} events, lost {len(lost)}, "
        f"duplicates {reader.seen.duplicates()}, tokens asked for {endpoint.answered - answered}"
    )
    assert not lost
    assert sent.bad.keys() == reader.seen.dead.keys()
    assert way == "SCRAM-SHA-512" or endpoint.answered - answered >= seconds / 6
    assert shows_no_secret(one, log.read_text())


# ---- refused connections: one message, exit code 2, no secret

Change = Callable[[SecuredKafka, Path], dict[str, object]]

REFUSED: dict[str, tuple[str, Change, str]] = {
    "wrong authority": (
        "SCRAM-SHA-512",
        lambda kafka, _: {"ca_file": str(kafka.stranger.file)},
        r"broker\.ca_file: the certificate of localhost:\d+ is not trusted by \S+stranger\.pem",
    ),
    "an authority the system does not know": (
        "mTLS",
        lambda *_: {"ca_file": None},
        r"broker\.ca_file: .* is not trusted by the system's authorities",
    ),
    "wrong host name": (
        "SCRAM-SHA-512",
        lambda kafka, _: {"bootstrap": kafka.addresses["SASL"].replace("localhost", "127.0.0.1")},
        r"broker\.bootstrap: the certificate of 127\.0\.0\.1:\d+ is not for this host",
    ),
    "no client certificate": (
        "mTLS",
        lambda *_: {"cert_file": None},
        r"broker\.cert_file: localhost:\d+ wants a client certificate",
    ),
    "client certificate of a stranger": (
        "mTLS",
        lambda kafka, _: {"cert_file": str(kafka.stranger.issue(USER))},
        r"broker\.cert_file: localhost:\d+ refuses the client certificate \S+desk-by-stranger\.pem",
    ),
    "wrong password, PLAIN": (
        "PLAIN",
        lambda _, folder: {"password_file": secret_file(folder, WRONG)},
        r"refuses user 'desk' by PLAIN .*check broker\.username, broker\.password_file \S+ and broker\.mechanism",
    ),
    "wrong password, SCRAM-SHA-256": (
        "SCRAM-SHA-256",
        lambda _, folder: {"password_file": secret_file(folder, WRONG)},
        r"refuses user 'desk' by SCRAM-SHA-256 .*check broker\.username",
    ),
    "wrong password, SCRAM-SHA-512": (
        "SCRAM-SHA-512",
        lambda _, folder: {"password_file": secret_file(folder, WRONG)},
        r"refuses user 'desk' by SCRAM-SHA-512 .*check broker\.username",
    ),
    "expired token": (
        "OAUTHBEARER from a file",
        lambda kafka, folder: {"token_file": secret_file(folder, kafka.issuer.token(lifetime_s=-90))},
        r"broker\.token_file: the token in \S+wrong expired at 20\S+Z; see why nothing has renewed it",
    ),
    "token for something else": (
        "OAUTHBEARER from a file",
        lambda kafka, folder: {"token_file": secret_file(folder, kafka.issuer.token(audience="elsewhere"))},
        r"refuses the token in \S+wrong .*check its issuer, its audience",
    ),
    "wrong client secret": (
        "OAUTHBEARER from an endpoint",
        lambda _, folder: {"password_file": secret_file(folder, WRONG)},
        r"broker\.token_url: https://localhost:\d+/token refuses the client 'desk' \(HTTP 401\)",
    ),
    "token endpoint of a stranger": (
        "OAUTHBEARER from an endpoint",
        lambda kafka, _: {"token_ca_file": str(kafka.stranger.file)},
        r"broker\.token_url: the certificate of https://localhost:\d+/token is not trusted .*broker\.token_ca_file",
    ),
    "no TLS where it is wanted": (
        "SCRAM-SHA-512",
        lambda *_: {"tls": False, "allow_plaintext_credentials": True},
        r"broker\.tls: localhost:\d+ speaks TLS; set broker\.tls = true",
    ),
}


def secret_file(folder: Path, content: str) -> str:
    path = folder / "wrong"
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_connection_is_one_message_and_code_2(
    case: str, secured: SecuredKafka, make: Make, tmp_path: Path
) -> None:
    way, change, message = REFUSED[case]
    changed = change(secured, tmp_path)
    one = make(way).but(**changed)
    done = run(["streams.worker"], one)
    print(f"\n{case}: code {done.code} after {done.seconds:.1f} s: {done.output.strip()}")
    assert done.code == 2
    assert re.search(message, done.output)
    assert len(done.output.strip().splitlines()) == 1
    assert shows_no_secret(one, done.output)
    wrong = tmp_path / "wrong"
    assert not wrong.exists() or wrong.read_text() not in done.output


def test_every_command_says_the_same(secured: SecuredKafka, make: Make, tmp_path: Path) -> None:
    one = make("PLAIN").but(password_file=secret_file(tmp_path, WRONG))
    (tmp_path / "events.jsonl").write_bytes(event(1))
    commands = {"topics list": 2, "topics create": 2, f"replay {tmp_path}/events.jsonl --topic x": 2, "check --json": 1}
    for command, code in commands.items():
        done = run(["streams.cli", *command.split()], one)
        assert done.code == code, done.output
        assert "refuses user 'desk' by PLAIN" in " ".join(done.output.split())
        assert shows_no_secret(one, done.output)
        assert WRONG not in done.output


def test_a_token_endpoint_that_is_down_is_code_75(secured: SecuredKafka, make: Make) -> None:
    one = make("OAUTHBEARER from an endpoint").but(token_url="https://localhost:9/token")
    done = run(["streams.worker"], one)
    assert done.code == 75
    assert re.search(r"broker\.token_url: https://localhost:9/token does not answer", done.output)


# ---- refused rights


def test_each_right_taken_from_a_worker_is_named(secured: SecuredKafka, make: Make) -> None:
    """None is too many: without any single one of them the worker is refused, and told which one it is."""
    one = make("SCRAM-SHA-512")
    make_topics(one, secured)
    needed = grants(one.settings, "worker")
    secured.allow(needed)
    require_access(one.settings, needed)
    for grant in (one for one in needed if one.kind != "transactional-id"):  # of those no broker tells
        secured.take_away([grant])
        with pytest.raises(AccessRefused) as caught:
            require_access(one.settings, needed)
        said = rf"user 'desk' by SCRAM-SHA-512 is not allowed to {grant.operation.upper()} the {grant.kind} "
        assert re.search(said + f"'{grant.name}'", str(caught.value)), (grant, str(caught.value))
        secured.allow([grant])
    require_access(one.settings, needed)


def test_each_right_taken_from_the_topics_role_is_named(secured: SecuredKafka, make: Make) -> None:
    one = make("SCRAM-SHA-512")
    needed = grants(one.settings, "topics")
    mine = [grant for grant in needed if grant.name == one.settings.topics.alerts]
    secured.allow(set(needed) - {grant for grant in mine if grant.operation == "Create"})
    outcomes = {outcome.name: outcome for outcome in create_topics(one.settings)}
    refused = outcomes.pop(one.settings.topics.alerts)
    assert {outcome.state for outcome in outcomes.values()} == {"created"}
    assert refused.state == "failed"
    assert "right to CREATE" in refused.todo
    secured.allow(grant for grant in mine if grant.operation == "Create")
    assert {outcome.name: outcome.state for outcome in create_topics(one.settings)}[refused.name] == "created"
    known = {state.name: state for state in list_topics(one.settings)}
    assert all(known[grant.name].config for grant in needed)
    configs, shown = Grant("topic", refused.name, "DescribeConfigs"), Grant("topic", refused.name, "Describe")
    secured.take_away([configs])
    assert {state.name: state for state in list_topics(one.settings)}[refused.name].config == {}
    secured.allow([configs])
    secured.take_away([shown])
    assert refused.name not in {state.name for state in list_topics(one.settings)}


def test_replay_without_the_right_to_write_is_refused(secured: SecuredKafka, make: Make, tmp_path: Path) -> None:
    one = make("PLAIN")
    make_topics(one, secured)
    topic = one.settings.sources["chat"].topic
    (tmp_path / "events.jsonl").write_bytes(event(1))
    command = ["streams.cli", "replay", str(tmp_path / "events.jsonl"), "--speed", "max", "--topic", topic]
    done = run(command, one)
    assert done.code == 2
    assert f"user 'desk' by PLAIN is not allowed to WRITE the topic '{topic}'" in done.output
    secured.allow([grant for grant in grants(one.settings, "replay") if grant.name == topic])
    assert run(command, one).code == 0


def test_a_worker_without_its_rights_names_them_all(secured: SecuredKafka, make: Make) -> None:
    one = make("mTLS")
    make_topics(one, secured)
    done = run(["streams.worker"], one)
    assert done.code == 2
    assert "the client certificate" in done.output
    for grant in grants(one.settings, "worker"):
        if grant.kind != "transactional-id":
            assert f"{grant.operation} {grant.kind} {grant.name}" in done.output
    check = run(["streams.cli", "check", "--json"], one)
    assert check.code == 1
    (found_json,) = [line for line in check.output.splitlines() if line.startswith('{"ok"')]
    found = {row["name"]: row for row in json.loads(found_json)["checks"]}
    assert found["access"]["ok"] is False
    assert f"Read group {one.settings.broker.group}" in found["access"]["detail"]


@pytest.mark.parametrize("right", ["Read news", "Write predictions", "Write dead_letters", "Read group"])
def test_a_right_taken_away_while_at_work_loses_nothing(right: str, secured: SecuredKafka, make: Make) -> None:
    """The process ends with code 2 and one message; what it could not publish is not committed, and done later."""
    one = make("SCRAM-SHA-512")
    make_topics(one, secured)
    needed = grants(one.settings, "worker")
    secured.allow(needed)
    operation, what = right.split()
    names = one.settings.topics.model_dump() | {"news": one.settings.sources["news"].topic}
    grant = Grant("group" if what == "group" else "topic", names.get(what, one.settings.broker.group), operation)  # type: ignore[arg-type]
    topics = [one.settings.sources["news"].topic]
    reader = reader_of(one, secured)
    with worker(one) as (process, log):
        first = send_events(secured.bootstrap, topics, 500, 0.1, 0, seed=1)
        reader.wait_for(first, 90)
        secured.take_away([grant])
        second = send_events(secured.bootstrap, topics, 500, 0.1, 3, seed=2, first=500)
        code = process.wait(90)
    text = log.read_text()
    reached = committed(secured.bootstrap, one.settings.broker.group, topics[0])
    print(f"\n{right}: code {code}: {text.strip().splitlines()[-1]}")
    assert code == 2
    said = f"is not allowed to {operation.upper()} the {grant.kind} '{grant.name}'"
    assert said in text, text
    assert "starting again" not in text, "it was taken for something unexpected first"
    assert shows_no_secret(one, text)
    done = reader.seen.predictions.keys() | {str(at) for at in reader.seen.dead}
    for at, name in (*second.good.items(), *((at, str(at)) for at in second.bad)):
        assert at.offset >= reached[at.partition] or name in done, f"{at} was committed without its output"
    secured.allow([grant])
    with worker(one) as (process, log):
        reader.wait_for(second, 90)
        assert stop(process) == 0
    reader.close()
    assert {*first.good.values(), *second.good.values()} == reader.seen.predictions.keys()
    assert {*first.bad, *second.bad} == reader.seen.dead.keys()


def test_a_password_changed_while_at_work_ends_the_worker(secured: SecuredKafka, make: Make) -> None:
    """The broker cuts its sessions: coming back, the worker is refused, says so, and ends; it does not try for ever."""
    user = f"{USER}-that-leaves"
    secured.set_scram_password(user, PASSWORD)
    one = make("SCRAM-SHA-512", listener="REAUTH").but(username=user)
    make_topics(one, secured)
    secured.allow(grants(one.settings, "worker"), user)
    reader = reader_of(one, secured)
    topics = [one.settings.sources["news"].topic]
    with worker(one) as (process, log):
        sent = send_events(secured.bootstrap, topics, 50, 0, 0, seed=1)
        reader.wait_for(sent, 90)
        secured.set_scram_password(user, WRONG)
        code = process.wait(120)
    reader.close()
    assert code == 2
    text = log.read_text()
    assert re.search(rf"refuses user '{user}' by SCRAM-SHA-512", text), text
    assert shows_no_secret(one, text)


# ---- what a record must not be able to do


def test_headers_of_a_record_send_nothing_anywhere(secured: SecuredKafka, make: Make) -> None:
    """Faust obeys these headers when an agent yields; ours never do."""
    one = make("SCRAM-SHA-512")
    make_topics(one, secured)
    target = one.settings.topics.feedback  # exists, and nobody writes to it
    secured.allow([*grants(one.settings, "worker"), Grant("topic", target, "Write")])
    producer = Producer({"bootstrap.servers": secured.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [("Faust-Ag-ReplyTo", target), ("Faust-Ag-CorrelationId", "1")]
    news, reader = one.settings.sources["news"].topic, reader_of(one, secured)
    for number in range(100):
        producer.produce(news, event(number), headers=headers)
    assert producer.flush(30) == 0
    with worker(one) as (process, log):
        read_to_the_end(reader, 100, 0, process, 90)
        assert stop(process) == 0, log.read_text()
    reader.close()
    assert len(reader.seen.predictions) == 100
    assert read_all(secured.bootstrap, target) == []


JOBS: dict[Role, tuple[str, ...]] = {
    "feedback": ("feedback", "collect", "--once"),
    "drift": ("drift", "watch", "--once"),
    "judge": ("releases", "watch", "--once"),
    "retrain": ("retrain", "intent", "--once"),
}


@pytest.mark.parametrize("role", JOBS)
def test_the_jobs_of_the_learning_loop_work_with_their_least_rights(
    role: Role, secured: SecuredKafka, make: Make, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    one, env = make("SCRAM-SHA-512"), {"STREAMGAUGE_HOME": str(tmp_path / "home")}
    make_topics(one, secured)
    command = ["streams.cli", *JOBS[role]]
    if role == "retrain":
        rows = [json.dumps({"text": row.text, "label": row.label}) for row in old_texts(0, 20)]
        (tmp_path / "old.jsonl").write_text("\n".join(rows))
        command += ["--champion", str(tiny_releases["intent"]), "--data", str(tmp_path / "old.jsonl")]
    refused = run(command, one, env)
    assert refused.code == 2 and "not allowed to" in refused.output, refused.output
    secured.allow(grants(one.settings, role))
    done = run(command, one, env)
    assert done.code == 0, done.output
    assert shows_no_secret(one, done.output, refused.output)
    if role == "retrain":
        assert call(one.settings, "intent", tmp_path, 0.0) is None
        ask_for_labels(one.settings, {"task": "intent", "id": "intent/drift/1"}, "too few", 1.0)  # type: ignore[typeddict-item]
