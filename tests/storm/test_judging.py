"""A verifier that cannot see a fault of its kind proves nothing: each is planted here."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.storm.events import NUMBER_HEADER, POISON, expected_outputs, key_of, source_of, value_of
from tests.storm.generator import oracle_rows
from tests.storm.judging import Coordinates, Ledger, Verdict, naive_losses
from tests.storm.offsets import Position
from tests.storm.plan import Plan

KINDS = {7: "not-utf8", 20: "tombstone", 32: "breaks-the-model"}
PLAN = Plan(1, 400, (), KINDS)
DONE = [Position("news", 0, 5, 5)]
Record = tuple[str, str, dict[str, Any]]  # output, key, value


def place(number: int) -> Coordinates:
    """All events of a source in one partition."""
    return source_of(number), 0, number


PLACES = {number: place(number) for number in range(PLAN.events)}


def letter(number: int) -> Record:
    topic, partition, offset = place(number)
    value, (stage, error) = value_of(number, KINDS[number]), POISON[KINDS[number]][1]
    body = {
        "id": f"{topic}/{partition}/{offset}/dead-letter", "stage": stage, "error": error, "failed_at": "some time",
        "value_base64": None if value is None else base64.b64encode(value).decode(),
        "headers_base64": [[NUMBER_HEADER, base64.b64encode(str(number).encode()).decode()]],
    }  # fmt: skip
    return "dead_letters", "", body


def records(number: int) -> list[Record]:
    """What a worker that keeps its promises publishes for an event."""
    if number in KINDS:
        return [letter(number)]
    topic, partition, offset = place(number)
    source = {"topic": topic, "partition": partition, "offset": offset}
    return [
        (output, key_of(number), {
            "id": f"{topic}/{partition}/{offset}/{suffix}", "label": label, "task": suffix.split("/")[0],
            "source": source, "scored_at": "some time",
        })
        for output, suffix, label in expected_outputs(number)
    ]  # fmt: skip


def judged(published: list[Record], positions: list[Position] = DONE) -> Verdict:
    ledger = Ledger()
    for output, key, value in published:
        ledger.take(output, key, json.dumps(value).encode())
    return ledger.judge(oracle_rows(PLAN), PLACES, positions)


@pytest.fixture
def all_well() -> list[Record]:
    return [record for number in range(PLAN.events) for record in records(number)]


def test_what_keeps_every_promise_holds(all_well: list[Record]) -> None:
    verdict = judged(all_well)
    assert verdict.holds
    assert (verdict.events, verdict.lost, verdict.dead_letters, verdict.duplicates) == (400, 0, 3, 0)
    assert verdict.outputs == len(all_well)


def test_a_redelivery_is_a_duplicate_and_no_fault(all_well: list[Record]) -> None:
    again = [
        (output, key, {**value, "scored_at": "later", "failed_at": "later"}) for output, key, value in all_well[50:90]
    ]
    verdict = judged(all_well[:90] + again + all_well[90:])
    assert verdict.holds
    assert verdict.duplicates == 40


@pytest.mark.parametrize("output", ["predictions", "alerts", "routes", "review", "observations", "dead_letters"])
def test_any_output_that_is_missing_is_a_loss(all_well: list[Record], output: str) -> None:
    at = next(index for index, record in enumerate(all_well) if record[0] == output)
    verdict = judged(all_well[:at] + all_well[at + 1 :])
    assert not verdict.holds
    assert verdict.lost == 1
    (loss,) = verdict.losses
    assert loss["at"] == "{}/{}/{}".format(*place(loss["n"]))


def test_an_event_without_coordinates_is_lost(all_well: list[Record]) -> None:
    ledger = Ledger()
    for output, key, value in all_well:
        ledger.take(output, key, json.dumps(value).encode())
    known = {number: at for number, at in PLACES.items() if number != 9}
    verdict = ledger.judge(oracle_rows(PLAN), known, DONE)
    assert [one["n"] for one in verdict.losses] == [9]


def changed(record: Record, **fields: object) -> Record:
    return record[0], record[1], {**record[2], **fields}


def dead_changed(published: list[Record], **fields: object) -> list[Record]:
    return [changed(one, **fields) if one[0] == "dead_letters" else one for one in published]


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (lambda all: [*all, changed(all[10], score=0.1)], "changed"),
        (lambda all: [changed(all[0], label="another"), *all[1:]], "wrong"),
        (lambda all: [*all, changed(all[0], id="news/0/77777/sentiment")], "wrong"),
        (lambda all: [*all, changed(letter(7), id="news/0/0/dead-letter")], "wrong_dead_letters"),
        (lambda all: dead_changed(all, error="Other"), "wrong_dead_letters"),
        (lambda all: dead_changed(all, value_base64="AA=="), "wrong_dead_letters"),
        (lambda all: dead_changed(all, headers_base64=[]), "wrong_dead_letters"),
        (lambda all: all[::-1], "disordered"),
    ],
    ids=[
        "redelivery-differs", "wrong-label", "output-of-no-event", "good-event-dead", "dead-for-another-reason",
        "original-changed", "header-lost", "order",
    ],
)  # fmt: skip
def test_whatever_else_is_wrong_is_seen(
    all_well: list[Record], spoil: Callable[[list[Record]], list[Record]], seen: str
) -> None:
    verdict = judged(spoil(all_well))
    assert not verdict.holds
    assert getattr(verdict, seen)


@pytest.mark.parametrize("committed", [4, 6])
def test_a_commit_that_is_not_at_the_log_end_is_seen(all_well: list[Record], committed: int) -> None:
    verdict = judged(all_well, [Position("news", 0, committed, 5)])
    assert not verdict.holds
    assert verdict.uncommitted == [f"news/0: committed {committed}, log end 5"]


def test_surge_alerts_are_not_judged(all_well: list[Record]) -> None:
    surge = ("alerts", "S1", {"id": "observations/0/1/surge/open", "kind": "surge"})
    assert judged([*all_well, surge]).holds


def test_losses_of_a_naive_worker_are_counted_by_event() -> None:
    good = {f"e{number}" for number in range(PLAN.events) if number not in KINDS}
    assert naive_losses(good, oracle_rows(PLAN)) == 0
    assert naive_losses(good - {"e3", "e4"}, oracle_rows(PLAN)) == 2
