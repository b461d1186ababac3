"""The dead letter of a record: whole, with why it failed and all that is needed to send it back."""

from __future__ import annotations

import base64

from streams.decisions import APP_VERSION, source_ref
from streams.events import DeadLetter, Output, Rejected, iso
from streams.intake import Record, Unreadable
from streams.lineage import Headers, lineage_of, redriven_of, trace_id

MAX_REASON_BYTES = 1024
MAX_ORIGINAL_BYTES = 7 * 1024 * 1024  # as JSON; with the rest of the letter below `publishing.MAX_MESSAGE_BYTES`
_KEPT_BYTES = 1024 * 1024  # of the value of a record beyond that
_KEPT_KEY_BYTES = 16 * 1024


def dead_letter(record: Record, source: str, rejected: Rejected, now_s: float) -> Output:
    """The letter, keyed by where the event lay first. One whose bytes no letter can hold keeps their beginnings, one
    that could not be read none."""
    at, redriven = rejected.at, redriven_of(record.headers, rejected.at)
    origin = redriven.origin if redriven else at
    letter_id = f"{at}/dead-letter"
    if redriven:
        letter_id = f"{lineage_of(origin, record.key, record.value)}/dead-letter/{redriven.times}"
    key, value, headers, truncated = record.key, record.value, record.headers or (), False
    if isinstance(value, Unreadable):
        value, truncated = None, True
    elif _encoded_bytes(key, value, headers) > MAX_ORIGINAL_BYTES:
        key, value, headers, truncated = key and key[:_KEPT_KEY_BYTES], value and value[:_KEPT_BYTES], (), True
    timestamp_ms = redriven.timestamp_ms if redriven else record.timestamp
    letter: DeadLetter = {
        "id": letter_id,
        "origin": str(origin),
        "source": source_ref(source, at),
        "timestamp": iso(timestamp_ms / 1000) if timestamp_ms is not None and timestamp_ms > 0 else None,
        "stage": rejected.stage,
        "error": rejected.error,
        "message": bounded(rejected.message),
        "attempts": rejected.attempts,
        "redrives": redriven.times if redriven else 0,
        "release": rejected.release,
        "trace_id": trace_id(record.headers, str(origin)),
        "key_base64": _base64(key),
        "value_base64": _base64(value),
        "headers_base64": [(name, _base64(data)) for name, data in headers],
        "truncated": truncated,
        "first_seen_at": redriven.first_seen_at if redriven else iso(now_s),
        "failed_at": iso(now_s),
        "app_version": APP_VERSION,
    }
    # What was shed is in a topic of its own, in the same envelope.
    return Output("shed" if rejected.stage == "shed" else "dead_letters", str(origin), letter)


def bounded(message: str) -> str:
    """At most 1 KiB of UTF-8; what is no character in it is replaced, as no JSON could carry it."""
    return message.encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def _encoded_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """No less than these take in the letter: base64, and names of which JSON may write a byte as six."""
    in_headers = sum(6 * len(name.encode()) + 4 * len(data or b"") // 3 + 16 for name, data in headers)
    return 4 * (len(key or b"") + len(value or b"")) // 3 + in_headers


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
