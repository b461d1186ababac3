"""`streamgauge dead-letters`: what it says, what it ends with, and that no letter reaches the terminal raw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.embedded import EmbeddedBroker
from tests.streams.commands import Done, Run, runner
from tests.streams.letters import FAILED_S, letter, publish
from tests.streams.wire import free_port, read_all

HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]\u202e"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capsys, tmp_path)


@pytest.fixture
def filled(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> EmbeddedBroker:
    """Ten letters of chat, one hostile one, one that was redriven three times, one of a topic that is not read."""
    monkeypatch.setenv("STREAMGAUGE_BROKER__BOOTSTRAP", embedded.bootstrap)
    records = [letter(number, failed_s=FAILED_S + number, value=b"event %d" % number) for number in range(10)]
    records.append(
        letter(20, error="Odd", message=HOSTILE * 200, value=(HOSTILE * 2000).encode(), failed_s=FAILED_S + 20)
    )
    records.append(letter(30, redrives=3, failed_s=FAILED_S + 30))
    records.append(letter(40, topic="payments", failed_s=FAILED_S + 40))
    publish(embedded.bootstrap, "dead-letters", [*records, b"no letter \x1b[2J"])
    return embedded


def last(done: Done) -> Any:
    return json.loads(done.out.splitlines()[-1])


def offsets(done: Done) -> list[int]:
    return [one["source"]["offset"] for one in last(done)["letters"]]


def harmless(done: Done) -> bool:
    return all(one.isprintable() or one == "\n" for one in done.out + done.err)


def test_the_list_names_what_failed_and_how(run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "list")
    assert done.code == 0, done.err
    assert "chat/3/7/dead-letter" in done.out and "2026-03-01T12:00:07.000Z" in done.out
    assert "13 of 13 letters; 0 were sent back already" in done.out
    assert "warning: 1 records of dead-letters are no dead letters, passed over" in done.err
    assert harmless(done)
    assert r"\x1b]0;owned" in done.out.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], [*range(10), 20, 30, 40]),
        (["--limit", 4], [9, 20, 30, 40]),
        (["--topic", "payments"], [40]),
        (["--topic", "chat", "--partition", 3, "--stage", "intake", "--error", "odd"], [20]),
        (["--stage", "scoring"], []),
        (["--partition", 2], []),
        (["--since", "2026-03-01T12:00:08Z", "--until", str(FAILED_S + 20)], [8, 9]),
        (["--since", "2026-03-01T13:00:20+01:00"], [20, 30, 40]),
        (["--until", "1970-01-01"], []),
    ],
    ids=str,
)
def test_options_narrow_the_list(options: list[object], found: list[int], run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "list", "--json", *options)
    assert (done.code, offsets(done)) == (0, found)
    assert last(done)["skipped"] == 1
    assert all("value_base64" not in one for one in last(done)["letters"])


def test_one_letter_is_shown_whole_and_harmless(run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "show", "chat/3/20/dead-letter")
    assert done.code == 0
    assert harmless(done)
    text = "".join(done.out.split())
    assert r"\x1b]0;owned\x07\x1b[2J[red]\u202e" in text and "morebytes)" in text
    for name in ("trace_id", "first_seen_at", "attempts", "release", "header", "key", "copies"):
        assert name in done.out
    assert len(done.out) < 40_000
    whole = last(run("dead-letters", "show", "chat/3/7/dead-letter", "--json"))
    assert (whole["value_base64"], whole["redriven"], whole["copies"]) == ("ZXZlbnQgNw==", False, 1)


def test_a_letter_that_is_not_there(run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "show", "chat/3/77/dead-letter\x1b[2J")
    assert done.code == 1
    assert "no dead letter 'chat/3/77/dead-letter" in done.err
    assert harmless(done)


def test_redriving_counts_what_went_and_what_was_refused(run: Run, filled: EmbeddedBroker) -> None:
    looked = run("dead-letters", "redrive", "--dry-run", "--json")
    assert (looked.code, last(looked)["selected"], last(looked)["redriven"], last(looked)["dry_run"]) == (
        0,
        11,
        0,
        True,
    )
    done = run("dead-letters", "redrive", "--yes", "--json", "--rate-per-s", 1000)
    assert last(done) == {
        "selected": 11, "redriven": 11, "refused": 2, "failed": 0, "forgotten": 0, "before": 0, "beyond": 0,
        "refused_by": {"too-often": 1, "not-a-source": 1}, "dry_run": False, "interrupted": False,
    }  # fmt: skip
    assert done.code == 1, "some were refused"
    assert "/dead-letter/3: redriven 3 times and failed again; the most is 3 (--max-redrives)" in done.err
    assert "topic 'payments' is not read by this configuration" in done.err
    assert harmless(done)
    assert len(read_all(filled.bootstrap, "chat")) == 11
    again = run("dead-letters", "redrive", "--yes", "--json")
    assert (again.code, last(again)["redriven"], last(again)["before"]) == (1, 0, 11)
    assert len(read_all(filled.bootstrap, "chat")) == 11
    left = run("dead-letters", "list", "--json")
    assert (offsets(left), last(left)["redriven"]) == ([30, 40], 11)
    every = run("dead-letters", "list", "--json", "--with-redriven")
    assert [one["redriven"] for one in last(every)["letters"]] == [True] * 11 + [False] * 2
    assert "sent back" in run("dead-letters", "list", "--with-redriven").out


def test_letters_can_be_named_and_their_number_limited(run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "redrive", "chat/3/2/dead-letter", "chat/3/5/dead-letter", "--yes")
    assert (done.code, "2 redriven, 0 refused, 0 failed" in done.out) == (0, True)
    assert sorted(message.value() or b"" for message in read_all(filled.bootstrap, "chat")) == [b"event 2", b"event 5"]
    done = run("dead-letters", "redrive", "--topic", "chat", "--limit", 3, "--yes", "--json")
    assert (last(done)["redriven"], last(done)["beyond"], last(done)["before"]) == (3, 6, 2)
    done = run(
        "dead-letters", "redrive", "--max-redrives", 4, "--error", "NotJson", "--topic", "chat", "--yes", "--json"
    )
    assert (done.code, last(done)["redriven"], last(done)["refused"]) == (0, 6, 0)


def test_nothing_to_redrive_is_no_failure(run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "redrive", "--stage", "scoring", "--json")
    assert (done.code, last(done)["selected"]) == (0, 0)


def test_without_a_person_to_ask_yes_must_be_said(run: Run, filled: EmbeddedBroker) -> None:
    done = run("dead-letters", "redrive", "--topic", "chat")
    assert done.code == 2
    assert "add --yes, or --dry-run to look first" in " ".join(done.err.split())
    assert "11 letters to send back: 11 to chat" in done.err


def test_interrupted_it_remembers_what_went(run: Run, filled: EmbeddedBroker, tmp_path: Path) -> None:
    """Though the next letter would be due in a minute and a half only."""
    publish(filled.bootstrap, "chat", [b"so that the topic is there"])
    command = ["dead-letters", "redrive", "--topic", "chat", "--yes", "--json", "--rate-per-s", "0.01"]
    with subprocess.Popen(
        [sys.executable, "-m", "streams.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2], env=dict(os.environ),
    ) as process:  # fmt: skip
        try:
            while len(read_all(filled.bootstrap, "chat")) == 1 and process.poll() is None:
                pass  # until the first event is there
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    said = json.loads(out.splitlines()[-1])
    assert (process.returncode, said["redriven"], said["interrupted"]) == (1, 1, True), err
    assert last(run("dead-letters", "list", "--json"))["redriven"] == 1


@pytest.mark.parametrize(
    "options", [["--since", "yesterday"], ["--until", "1e999"], ["--stage", "later"], ["--limit", "0"],
                ["--partition", "-1"]], ids=str,
)  # fmt: skip
@pytest.mark.parametrize("command", ["list", "redrive"])
def test_options_that_make_no_sense(command: str, options: list[str], run: Run) -> None:
    done = run("dead-letters", command, *options)
    assert done.code == 2
    assert options[0].lstrip("-") in done.err and "Traceback" not in done.err


def test_a_broker_that_is_away_ends_with_75(run: Run) -> None:
    for command in (["list"], ["show", "x"], ["redrive", "--yes"]):
        done = run("dead-letters", *command, BROKER__BOOTSTRAP=f"127.0.0.1:{free_port()}")
        assert (done.code, done.out) == (75, "")
        assert "does not answer" in done.err
