"""What a task was taught before there was feedback, and the frozen hold-out that every candidate is measured on.

    home()/learning/<task>/{hold_out.jsonl, old.jsonl}

Both are set once and stay. A frozen hold-out makes candidates comparable over months. And each of them rehearses the
first data and all feedback that counts now, not what its champion learned: so feedback that was corrected or withdrawn
is gone for good, and none is learned twice.
"""

import json
from pathlib import Path
from typing import NamedTuple

from models.datasets import Example, check, data_hash, normalised, read_jsonl, split
from models.durable import replace_file
from models.errors import BadDataset
from models.lessons import DEV_FRACTION
from models.readers import read_examples
from models.releases import HeadEntry, Manifest
from models.starter import corpus_path
from models.tasks import shipped_tasks
from models.train_settings import TrainSettings

OLD, HOLD_OUT = "old.jsonl", "hold_out.jsonl"


class OldData(NamedTuple):
    """Old texts to rehearse, and texts that nobody may learn from; they have none in common."""

    old: list[Example]
    hold_out: list[Example]


def old_data(
    champion: Manifest, task: str, folder: Path, data: Path | None = None, hold_out: Path | None = None
) -> OldData:
    """The old data of a task; `data` and `hold_out` are files that set them, the first time or anew.

    Without a hold-out of its own, the tenth serves that training held out of `data` to choose and calibrate the model
    by. A shipped task's starter needs no files. Raises BadDataset when nobody said what the champion was trained on.
    """
    if data is None and hold_out is None and (folder / OLD).is_file():
        return OldData(read_jsonl(folder / OLD), read_jsonl(folder / HOLD_OUT))
    found = _given(champion, task, folder, data, hold_out)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / HOLD_OUT, found.hold_out)
    _write(folder / OLD, found.old)  # last: where it is, both are
    return found


def is_what_it_learned(head: HeadEntry, examples: list[Example]) -> bool:
    """Whether these are the very examples that a release's head was trained on."""
    return data_hash(examples) == head.data.sha256


def _given(champion: Manifest, task: str, folder: Path, data: Path | None, hold_out: Path | None) -> OldData:
    if data is not None:
        old = check(read_examples(data)).examples
    elif (folder / OLD).is_file():
        old = read_jsonl(folder / OLD)
    else:
        old, hold_out = _shipped(champion, task), hold_out or corpus_path(task, "test")
    if hold_out is None:
        old, kept_apart = split(old, DEV_FRACTION, _split_seed(champion))
        if not kept_apart:
            raise BadDataset(f"{data}: every label has a single example, so none can be held out: give --hold-out")
        return OldData(old, kept_apart)
    kept_apart = check(read_examples(hold_out)).examples
    apart = {normalised(example.text) for example in kept_apart}
    return OldData([example for example in old if normalised(example.text) not in apart], kept_apart)


def _shipped(champion: Manifest, task: str) -> list[Example]:
    if task in shipped_tasks():
        corpus = check(read_jsonl(corpus_path(task, "train"))).examples
        if is_what_it_learned(champion.head(task), corpus):
            return corpus
    raise BadDataset(
        f"{champion.release} was trained on {champion.head(task).data.name}, which is not kept with it: say where it is"
        " with --data FILE, and what candidates are to be measured on with --hold-out FILE; once is enough"
    )


def _split_seed(champion: Manifest) -> int:
    knobs = champion.metrics.get("training", {}).get("knobs", {})
    return int(knobs.get("split_seed", TrainSettings().split_seed))


def _write(path: Path, examples: list[Example]) -> None:
    lines = "".join(json.dumps(example._asdict()) + "\n" for example in examples)
    replace_file(path, lines.encode())
