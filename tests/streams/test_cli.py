"""The command: help everywhere, schemas that are schemas, and errors in one message with the right code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka import Message

from streams import cli
from streams.embedded import EmbeddedBroker
from streams.events import WIRE_TYPES, Prediction
from streams.exits import BROKER_UNAVAILABLE, USAGE, BrokerUnavailable
from streams.publishing import DeliveryFailed
from streams.settings import DEFAULTS, load_settings
from tests.streams.commands import Run, runner
from tests.streams.wire import free_port, read_all

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command as the console script does, in an empty folder: run("check", BROKER__BOOTSTRAP=...)."""
    return runner(monkeypatch, capsys, tmp_path)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


ALL = list(commands(typer.main.get_command(cli.app)))


def test_the_commands_there_are() -> None:
    contract = {"demo", "worker", "broker", "topics", "schema", "check", "train", "evaluate", "classify", "replay"}
    assert contract <= {path[0] for path in ALL if path}
    assert {("topics", "create"), ("topics", "list")} <= set(ALL)
    assert {("dead-letters", one) for one in ("list", "show", "redrive")} <= set(ALL)


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "streamgauge")
def test_every_command_has_help(path: tuple[str, ...], run: Run) -> None:
    done = run(*path, "--help")
    assert done.code == 0
    assert " ".join(("streamgauge", *path)) in done.out
    described = [line for line in done.out.splitlines() if line.strip() and "Usage:" not in line and line[0] == " "]
    assert described, "no word on what it does"


def test_help_is_quick_enough_to_be_asked_for_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", "schema", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- schema


def check_schema(schema: Any, root: Any) -> None:
    """A JSON Schema in what these schemas use of it: objects with properties, and references that lead somewhere."""
    assert isinstance(schema, dict)
    if (reference := schema.get("$ref")) is not None:
        assert reference.removeprefix("#/$defs/") in root["$defs"], reference
    types = {"object", "array", "string", "number", "integer", "boolean", "null", None}
    assert schema.get("type") in types
    assert set(schema.get("required", ())) <= set(schema.get("properties", ()))
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("prefixItems", ()),
             *schema.get("$defs", {}).values()]  # fmt: skip
    for part in parts:
        check_schema(part, root)
    if isinstance(schema.get("items"), dict):
        check_schema(schema["items"], root)


def test_the_schemas_of_all_topics(run: Run) -> None:
    done = run("schema")
    schemas = json.loads(done.out)
    assert (done.code, set(schemas)) == (0, set(WIRE_TYPES))
    for schema in schemas.values():
        check_schema(schema, schema)
        assert schema["type"] == "object"
    for topic in ("predictions", "alerts", "routes", "review"):
        assert set(Prediction.__required_keys__) <= set(schemas[topic]["required"])


def test_the_schema_of_one_topic(run: Run) -> None:
    assert json.loads(run("schema", "dead-letters").out)["title"] == "DeadLetter"
    done = run("schema", "nonsense")
    assert done.code == 2
    assert "no schema for 'nonsense'; there are: news, chat" in " ".join(done.err.split())


# ---- errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[broker]\nboostrap = 'x:1'", ["broker.boostrap", "did you mean 'bootstrap'?", "wrong.toml"]),
        ("[batching]\nmax_wait_ms = -1", ["batching.max_wait_ms", "greater than or equal to 0", "wrong.toml"]),
        ("[broker", ["wrong.toml", "not valid TOML"]),
    ],
)
@pytest.mark.parametrize(
    "command", [["worker"], ["check"], ["topics", "list"], ["topics", "create"], ["broker"], ["demo"]], ids=" ".join
)
def test_a_wrong_configuration_ends_with_2_and_says_where(
    command: list[str], text: str, words: list[str], run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    done = run(*command, "--config", file)
    assert done.code == 2
    assert all(word in done.err for word in words), done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_configuration_that_is_not_there(run: Run) -> None:
    done = run("check", "--config", "nowhere.toml")
    assert done.code == 2
    assert "nowhere.toml: cannot be read" in done.err


def test_a_wrong_variable_is_named(run: Run) -> None:
    done = run("check", METRICS__PORT="99999")
    assert done.code == 2
    assert "metrics.port" in done.err and "STREAMGAUGE_METRICS__PORT" in done.err


def test_another_kind_of_broker(run: Run) -> None:
    done = run("broker", "rabbit")
    assert done.code == 2
    assert "'rabbit' is not a broker; allowed: embedded, kafka" in " ".join(done.err.split())


@pytest.mark.parametrize("speed", ["fast", "0", "-1", "nan", ""])
def test_what_is_not_a_speed(speed: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b'{"ts": 1, "text": "x"}\n')
    done = run("replay", "f.jsonl", "--topic", "news", f"--speed={speed}", BROKER__BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert done.code == 2
    assert f"{speed!r} is not a speed; allowed: max, or a number above 0" in " ".join(done.err.split())


def test_a_password_never_shows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "streamgauge.toml").write_text("[broker]\nusername = 'u'\npassword = 'S3cret-Word'\ntls = false\n")
    done = run("check")
    assert done.code == 2
    assert "broker" in done.err
    assert "S3cret-Word" not in done.err + done.out


def test_a_broker_that_is_away_ends_with_75(run: Run) -> None:
    done = run("topics", "list", BROKER__BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert (done.code, done.out) in {(75, ""), (2, "")}
    assert done.code == 75, "a broker that is away is no error of usage: starting again may help"
    assert "127.0.0.1" in done.err


# ---- replay


def texts(messages: list[Message]) -> list[bytes]:
    return sorted(message.value() or b"" for message in messages)


def test_replay_sends_and_says_so(run: Run, embedded: EmbeddedBroker, tmp_path: Path) -> None:
    lines = [b'{"ts": %d, "text": "x", "account": "A%d"}' % (n, n % 2) for n in range(10)]
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(lines))
    done = run("replay", "f.jsonl", "--topic", "transactions", "--speed", "max", "--json",
               BROKER__BOOTSTRAP=embedded.bootstrap)  # fmt: skip
    assert done.code == 0, done.err
    last = json.loads(done.out.splitlines()[-1])
    assert (last["topic"], last["records"]) == ("transactions", 10)
    found = read_all(embedded.bootstrap, "transactions")
    assert texts(found) == sorted(lines)
    by_key = {message.key(): message.partition() for message in found}
    assert set(by_key) == {b"A0", b"A1"}  # as the source of this topic keys its events
    done = run("replay", "f.jsonl", "--topic", "limited", "--speed", "max", "--limit", 3)
    assert done.code == 0
    assert "3 records to limited" in done.out
    assert texts(read_all(embedded.bootstrap, "limited")) == lines[:3]


def test_replay_of_a_line_without_a_time_names_it(run: Run, embedded: EmbeddedBroker, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b'{"ts": 1}\n{"text": "x"}\n')
    done = run("replay", "f.jsonl", "--topic", "news", BROKER__BOOTSTRAP=embedded.bootstrap)
    assert done.code == 2
    assert "f.jsonl:2: no usable ts" in done.err
    assert "--speed max" in done.err


@pytest.mark.parametrize("arguments", [["nowhere.jsonl", "--topic", "t"], ["f.jsonl"],
                                       ["f.jsonl", "--topic", "t", "--limit", "0"]])  # fmt: skip
def test_replay_used_wrongly(arguments: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b"{}\n")
    assert run("replay", *arguments).code == 2


def test_the_shipped_defaults_are_a_configuration(run: Run) -> None:
    done = run("topics", "list", "--config", DEFAULTS, BROKER__BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert "read from" not in done.err


def test_worker_processes_read_the_file_that_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's worker once read the defaults instead, and answered on topics nobody looked at."""
    monkeypatch.setenv("STREAMGAUGE_CONFIG", "")  # put back afterwards
    file = tmp_path / "mine.toml"
    file.write_text('[topics]\npredictions = "mine"\n')
    assert cli._settings_of_children(file).topics.predictions == "mine"
    assert load_settings().topics.predictions == "mine"


@pytest.mark.parametrize(
    ("error", "code"),
    [(DeliveryFailed("too large"), USAGE), (BrokerUnavailable("away"), BROKER_UNAVAILABLE)],
)
def test_a_command_that_could_not_send_ends_in_one_line(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr("streams.cli.app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"{error}\n"
