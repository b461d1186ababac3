"""The command `classify`: texts from standard input, a line of JSON for each."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, BinaryIO, NamedTuple

import typer

from models import explanations, releases
from models.classifier import Classifier
from models.tasks import load_task
from streams.command_line import Device, ReleaseRef, Runtime, TaskName
from streams.model_output import clear_errors

MAX_TEXT_BYTES = 1 << 20  # a longer line is no text: it is reported and passed over
BATCH_LINES = 256


def classify(
    task: TaskName,
    release: ReleaseRef = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also: what each word does for the score.")] = False,
    device: Device = "auto",
    runtime: Runtime = "auto",
) -> None:
    """Read texts on standard input, one a line; write a JSON line for each: text, label, scores, whether in scope."""
    with clear_errors():
        chosen = load_task(task)
        classifier = Classifier.load(releases.find_release(chosen.name, release), chosen, device, runtime)
    passed_over = 0
    batch: list[str] = []
    batch_lines = 1 if sys.stdin.isatty() else BATCH_LINES  # a person who types wants an answer to every line
    for line in read_lines(sys.stdin.buffer):
        if line.problem:
            print(f"line {line.number}: {line.problem}, passed over", file=sys.stderr)
            passed_over += 1
            continue
        batch.append(line.text)
        if len(batch) == batch_lines:
            _write_scores(classifier, batch, explain)
            batch = []
    _write_scores(classifier, batch, explain)
    if passed_over:
        raise typer.Exit(1)


class Line(NamedTuple):
    """One line of input: a text, or why it is none."""

    number: int  # from 1
    text: str
    problem: str | None = None


def read_lines(stream: BinaryIO) -> Iterator[Line]:
    """The lines of a byte stream; at most MAX_TEXT_BYTES of one are ever held."""
    number = 0
    while line := stream.readline(MAX_TEXT_BYTES + 1):
        number += 1
        if len(line) > MAX_TEXT_BYTES:
            while not line.endswith(b"\n") and (line := stream.readline(MAX_TEXT_BYTES)):
                pass
            yield Line(number, "", f"longer than {MAX_TEXT_BYTES} bytes")
            continue
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            yield Line(number, "", f"not UTF-8 ({error.reason} at byte {error.start + 1})")
            continue
        yield Line(number, text, None if text else "empty")


def _write_scores(classifier: Classifier, texts: Sequence[str], explain: bool) -> None:
    probabilities, familiarity = classifier.scored(classifier.read(texts))
    outside = classifier.head.is_outside(probabilities, familiarity).tolist()
    for text, row, strange in zip(texts, probabilities, outside, strict=True):
        best = int(row.argmax())
        scores = {label: round(float(score), 6) for label, score in zip(classifier.labels, row, strict=True)}
        label = classifier.labels[best]
        found = {"text": text, "label": label, "score": scores[label], "scores": scores, "out_of_scope": strange}
        words = {"words": _words(classifier, text, label)} if explain else {}
        print(json.dumps(found | words, ensure_ascii=False))
    sys.stdout.flush()


def _words(classifier: Classifier, text: str, label: str) -> list[dict[str, Any]]:
    return [
        {"start": start, "end": end, "text": text[start:end], "weight": round(weight, 6)}
        for start, end, weight in explanations.explain(classifier, text, label).words
    ]
