"""Statements made by hand."""

from __future__ import annotations

from models.learning.opinions import Opinion, Position, Statement, Withdrawal


def label(
    label: str,
    at_s: float,
    annotator: str = "ann",
    key: str = "chat/0/1",
    offset: int = 0,
    note: str | None = None,
    at_random: bool = False,
) -> Statement:
    said = Opinion("risk", key, f"text of {key}", label, annotator, at_s, 5.0, "chat", note, at_random=at_random)
    return Statement(said, Position(0, offset))


def withdraw(at_s: float, annotator: str = "ann", key: str = "chat/0/1", offset: int = 0) -> Statement:
    return Statement(Withdrawal("risk", key, annotator, at_s), Position(0, offset))
