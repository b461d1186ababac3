"""The model card of a release: what it is for, how good it was found, what it was made of, where it ends.

Markdown, made from the manifest alone, so the same release always has the same card (the idea: Mitchell et al. 2019,
"Model Cards for Model Reporting"). It says nothing that was not measured or recorded when the release was made.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.releases import HeadEntry, Manifest, file_sha256

CARD = "card.md"

_QUALITY = ("n", "accuracy", "macro_f1", "ece")
_PER_LABEL = ("precision", "recall", "f1", "support")
_MAX_CELL_CHARS = 200


def with_card(directory: Path, manifest: Manifest) -> Manifest:
    """Write the card of an unpublished release, and give the manifest that lists it among the files."""
    plain = manifest.model_copy(update={"files": {name: h for name, h in manifest.files.items() if name != CARD}})
    (directory / CARD).write_text(card(plain), encoding="utf-8")
    return plain.model_copy(update={"files": {**plain.files, CARD: file_sha256(directory / CARD)}})


def card(manifest: Manifest) -> str:
    """The card's Markdown."""
    parts = (
        _opening(manifest),
        _use(manifest),
        _quality(manifest),
        _training(manifest),
        _limits(manifest),
        _files(manifest),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _opening(manifest: Manifest) -> Iterator[str]:
    yield f"# {_cell(manifest.release)}"
    yield ""
    made = f"made on {manifest.created_at:%Y-%m-%d}"
    if manifest.code is not None:
        made += f" with Streamgauge {_cell(manifest.code.version)}"
    yield f"A text classifier, {made}. It gives every text a score for each of the labels of:"
    yield ""
    for head in manifest.heads:
        yield f"- **{_cell(head.task)}**: {', '.join(map(_cell, head.labels))}"


def _use(manifest: Manifest) -> Iterator[str]:
    yield "## Use"
    yield ""
    for task in manifest.tasks:
        yield f"    streamgauge classify {_word(task)} --release {_word(manifest.release)}"
    yield ""
    yield "Meant for text like that of its training data, by people who have measured it on text of their own:"
    yield "`streamgauge evaluate TASK --data FILE.jsonl --release RELEASE`."


def _quality(manifest: Manifest) -> Iterator[str]:
    yield "## Quality"
    yield ""
    yield "Measured on development examples: the model did not learn from them, but was chosen and calibrated on them,"
    yield "so expect somewhat less on text it has never met. `n` examples; ECE is the gap between score and accuracy."
    yield ""
    rows = [[head.task, *(_figure(_dev(head).get(name)) for name in _QUALITY)] for head in manifest.heads]
    yield from _table(("task", "n", "accuracy", "macro-F1", "ECE"), rows)
    for head in manifest.heads:
        if isinstance(labels := _dev(head).get("per_label"), dict):
            yield from ("", f"### {_cell(head.task)}, by label", "")
            yield from _table(("label", *_PER_LABEL), [[label, *_scores(labels[label])] for label in labels])
    if others := list(_other_figures(manifest)):
        yield from ("", "### Further figures", "")
        yield from _table(("figure", "value"), others)


def _training(manifest: Manifest) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    rows = [("base encoder", manifest.base.name, manifest.base.sha256)]
    rows += [
        (f"data of {one.task}", f"{one.data.name}, {one.data.rows} rows", one.data.sha256) for one in manifest.heads
    ]
    if manifest.code is not None:
        rows.append(("code", f"Streamgauge {manifest.code.version}", manifest.code.sha256))
    if manifest.parent is not None:
        rows.append(("parent release", manifest.parent.release, manifest.parent.sha256))
    yield from _table(("what", "which", "SHA-256"), rows)
    yield ""
    how = f"Recipe {_cell(manifest.recipe)}, method {_cell(manifest.method)}, seed {manifest.seed}"
    yield f"{how}, weights in {manifest.precision}."
    yield f"Packages: {', '.join(f'{_cell(name)} {_cell(its)}' for name, its in sorted(manifest.versions.items()))}."


def _limits(manifest: Manifest) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if any(head.scope is None for head in manifest.heads):
        yield "- Every text gets one of the labels above, also one that none of them fits; low scores are for people."
    yield f"- It reads {manifest.max_tokens} tokens at once; a longer text is scored in overlapping windows."
    for head in manifest.heads:
        yield f"- {_cell(head.task)}: calibrated, by {_temperatures(head)}, for text like its data."
        if head.scope is not None:
            took, turned = f"{head.scope.false_acceptance:.3f}", f"{head.scope.false_rejection:.3f}"
            yield (
                f"- {_cell(head.task)}: tells texts out of scope; of {head.scope.n_outside} development texts it took"
                f" {took} for in scope, and turned {turned} of the others away."
            )
        if weak := _weakest(head):
            yield f"- {_cell(head.task)}: weakest on {weak}."


def _files(manifest: Manifest) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield from _table(("file", "SHA-256"), sorted(manifest.files.items()))


def _dev(head: HeadEntry) -> Mapping[str, Any]:
    dev = head.metrics.get("dev")
    return dev if isinstance(dev, dict) else {}


def _weakest(head: HeadEntry) -> str:
    """The label with the lowest F1 that there is evidence for, in words; empty where labels were not graded."""
    labels = _dev(head).get("per_label")
    graded = {
        label: scores["f1"]
        for label, scores in (labels.items() if isinstance(labels, dict) else ())
        if isinstance(scores, dict) and isinstance(scores.get("f1"), float) and scores.get("support")
    }
    if not graded:
        return ""
    worst = min(graded, key=lambda label: (graded[label], label))
    return f"{_cell(worst)} (F1 {graded[worst]:.3f})"


def _scores(scores: Any) -> list[str]:
    return [_figure(scores.get(name) if isinstance(scores, dict) else None) for name in _PER_LABEL]


def _other_figures(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Everything measured that no table shows yet, by its path in the manifest."""
    yield from _flat("", manifest.metrics)
    for head in manifest.heads:
        rest = {name: value for name, value in head.metrics.items() if name != "dev"}
        dev = {name: value for name, value in _dev(head).items() if name not in (*_QUALITY, "per_label")}
        yield from _flat(f"{head.task}.", rest | ({"dev": dev} if dev else {}))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", _figure(value)


def _temperatures(head: HeadEntry) -> str:
    bends = (f", from a lead of {bend.lead:.4g} on {bend.temperature:.4g}" for bend in head.bends)
    return f"a temperature of {head.temperature:.4g}{''.join(bends)}"


def _figure(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Text of any origin as one harmless piece of Markdown: on one line, without markup, links or HTML."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    cut = flat if len(flat) <= _MAX_CELL_CHARS else flat[: _MAX_CELL_CHARS - 3] + "..."
    return re.sub(r"([\\`*_{}\[\]<>|#!~&])", r"\\\1", cut)


def _word(text: str) -> str:
    """A name as it may stand in a command; one that would need quoting is left to the reader."""
    return text if re.fullmatch(r"[\w.-]+", text) else "NAME"
