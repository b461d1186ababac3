"""What came out, held against what had to. Pure: records in, a verdict out.

Kept of every output is a digest without its wall-clock fields, so that a storm of a million records fits in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.storm.events import NUMBER_HEADER
from tests.storm.offsets import Position

# When it happened, and how often a text was tried, which depends on how the model fared meanwhile.
CIRCUMSTANCES = ("scored_at", "failed_at", "first_seen_at", "attempts")
EXAMPLES = 50
Coordinates = tuple[str, int, int]


@dataclass
class Verdict:
    """The storm's result; every list is empty when all is well, and holds at most EXAMPLES lines of text."""

    events: int = 0
    lost: int = 0
    dead_letters: int = 0
    outputs: int = 0
    duplicates: int = 0
    losses: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrong_dead_letters: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    uncommitted: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not (
            self.lost or self.wrong or self.wrong_dead_letters or self.changed or self.disordered or self.uncommitted
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: what it says, and the original it carries."""

    number: str
    stage: str
    error: str
    value_base64: str | None


class Ledger:
    """Takes every record of the output topics, each topic's partitions in their order."""

    def __init__(self) -> None:
        self.outputs: dict[str, tuple[int, str]] = {}  # by name/id: digest, label
        self.letters: dict[str, Letter] = {}  # by id
        self.ends = 0  # predictions and dead letters, each id once
        self._verdict = Verdict()
        self._latest: dict[tuple[str, str, str, int], int] = {}  # by key, task and source partition: the last offset

    def take(self, name: str, key: str, value: bytes) -> None:
        """One record of the output `name`; what the surge detector says is not the storm's to judge."""
        body = json.loads(value)
        if body.get("kind") == "surge":
            return
        one, digest = f"{name}:{body['id']}", _digest(body)
        known = self.outputs.get(one)
        if known is not None:
            self._verdict.duplicates += 1
            if known[0] != digest:
                _note(self._verdict.changed, f"{one}: a redelivery changed it")
            return
        self.outputs[one] = digest, body.get("label", "")
        if name == "dead_letters":
            self.letters[body["id"]] = _letter(body)
        if name in ("predictions", "dead_letters"):
            self.ends += 1
        if name == "predictions":
            self._ordered(key, body)

    def _ordered(self, key: str, body: Mapping[str, Any]) -> None:
        source = body.get("source")
        if source is None:
            return  # a naive worker's outputs do not say where they come from
        where, offset = (key, body["task"], source["topic"], source["partition"]), source["offset"]
        if offset < self._latest.get(where, -1):
            _note(self._verdict.disordered, f"key {key}: {body['id']} after offset {self._latest[where]}")
        self._latest[where] = offset

    def judge(
        self,
        oracle: Iterable[Mapping[str, Any]],
        places: Mapping[int, Coordinates],
        positions: Sequence[Position],
    ) -> Verdict:
        """The verdict.

        Args:
            oracle: see `generator.oracle_rows`.
            places: where each event lies.
            positions: of every input partition.
        """
        verdict = self._verdict
        verdict.outputs = len(self.outputs)
        allowed: set[str] = set()
        for row in oracle:
            verdict.events += 1
            at = places.get(row["n"])
            where = "?" if at is None else f"{at[0]}/{at[1]}/{at[2]}"
            missing = self._missing(row, where, allowed)
            if missing:
                verdict.lost += 1
                _note(verdict.losses, {"n": row["n"], "at": where, "missing": missing})
        for one in self.outputs.keys() - allowed:
            _note(verdict.wrong_dead_letters if one.startswith("dead_letters:") else verdict.wrong, f"unexpected {one}")
        verdict.dead_letters = len(self.letters)
        for topic, partition, committed, end in positions:
            if committed != end:
                _note(verdict.uncommitted, f"{topic}/{partition}: committed {committed}, log end {end}")
        return verdict

    def _missing(self, row: Mapping[str, Any], where: str, allowed: set[str]) -> list[str]:
        """What an event should have and has not; what is there is noted as allowed, and as wrong when it differs."""
        if "poison" in row:
            one = f"dead_letters:{where}/dead-letter"
            allowed.add(one)
            if one not in self.outputs:
                return ["dead letter"]
            self._check(self.letters[f"{where}/dead-letter"], row, where)
            return []
        missing = []
        for name, suffix, label in row["outputs"]:
            one = f"{name}:{where}/{suffix}"
            allowed.add(one)
            found = self.outputs.get(one)
            if found is None:
                missing.append(f"{name}/{suffix}")
            elif found[1] != label:
                _note(self._verdict.wrong, f"{one}: label {found[1]!r}, expected {label!r}")
        return missing

    def _check(self, letter: Letter, row: Mapping[str, Any], where: str) -> None:
        stage, error = row["verdict"]
        wanted = Letter(str(row["n"]), stage, error, row["value_base64"])
        if letter != wanted:
            differing = [name for name in Letter.__slots__ if getattr(letter, name) != getattr(wanted, name)]
            found = ", ".join(f"{name} is {str(getattr(letter, name))[:60]!r}" for name in differing)
            _note(self._verdict.wrong_dead_letters, f"{where} ({row['poison']}): {found}")


def naive_losses(ledger_ids: set[str], oracle: Iterable[Mapping[str, Any]]) -> int:
    """How many good events have no prediction at all, by the event's own id: for a worker with formats of its own."""
    return sum("poison" not in row and f"e{row['n']}" not in ledger_ids for row in oracle)


def _letter(body: Mapping[str, Any]) -> Letter:
    headers = dict(body["headers_base64"])
    number = base64.b64decode(headers.get(NUMBER_HEADER) or "").decode()
    return Letter(number, body["stage"], body["error"], body["value_base64"])


def _digest(body: Mapping[str, Any]) -> int:
    lasting = {name: value for name, value in body.items() if name not in CIRCUMSTANCES}
    data = json.dumps(lasting, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _note(notes: list[Any], one: Any) -> None:
    if len(notes) < EXAMPLES:
        notes.append(one)
