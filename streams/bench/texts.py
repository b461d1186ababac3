"""The texts and the events of a benchmark: the same ones for every system."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

SAMPLES = Path(__file__).parents[1] / "samples"


class BadTexts(ValueError):
    """A file of texts that cannot be used; the message names it and the line."""


def load_texts(files: Sequence[Path], count: int) -> list[str]:
    """`count` texts, spread evenly over the files (the shipped samples when there is none) and mixed, always alike.

    A file that has too few is read again, with a number added to each text so that no two are equal.

    Raises:
        BadTexts: a file cannot be read, or a line of it has no `text`.
    """
    sources = [_endless(_read(path)) for path in files or sorted(SAMPLES.glob("*.jsonl"))]
    texts = list(itertools.islice((next(source) for source in itertools.cycle(sources)), count))
    random.Random(0).shuffle(texts)  # noqa: S311  else partitions and files would march in step
    return texts


def _endless(texts: Sequence[str]) -> Iterator[str]:
    yield from texts
    for again in itertools.count(2):
        yield from (f"{text} ({again})" for text in texts)


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadTexts(f"--texts {path}: cannot be read: {error.strerror}") from None
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            text = orjson.loads(line)["text"] if line.strip() else None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            text = ""
        if text is not None:
            if not isinstance(text, str) or not text:
                raise BadTexts(f"--texts {path}, line {number}: must be a JSON object with a `text` that is not empty")
            texts.append(text)
    if not texts:
        raise BadTexts(f"--texts {path}: has no line")
    return texts


def events(texts: Sequence[str], prefix: str = "e") -> list[bytes]:
    """One JSON event for each text; its id is `prefix` and the number of its place."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return [
        orjson.dumps({"id": f"{prefix}{place}", "ts": now, "text": text, "conversation": f"v{place % 997}"})
        for place, text in enumerate(texts)
    ]
