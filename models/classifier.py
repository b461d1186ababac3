"""A release at work, in three phases: text -> windows of token ids -> logits -> calibrated probabilities of each task.

`Model` is the release as a worker serves it, all heads at once; `Classifier` is one task of it, with whole texts in and
one row a text out.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from models.errors import IntegrityError
from models.out_of_scope import DIGITS, Scope, familiarity, outside_column
from models.padding import length_sorted_batches, padded
from models.releases import TOKENIZER, HeadEntry, Manifest, read_manifest
from models.releases import verify as verified_manifest
from models.runtimes import Device, Floats, Runtime, open_runtime
from models.runtimes.measuring import BATCH_TOKENS
from models.softmax import softmax
from models.tasks import Task
from models.temperature import Calibration
from models.windows import MAX_CHARS_A_TOKEN, MAX_WINDOWS, merge, overlap_tokens

Span = tuple[int, int]  # the first character and the one after the last; (0, 0) is nowhere


class Reading(NamedTuple):
    """What a model makes of texts: raw logits [windows, columns], and for each text the tokens of its windows."""

    logits: Floats
    windows: list[list[int]]


class Encoded(NamedTuple):
    """A text as token ids, special tokens included: one window of 2..max_tokens, or overlapping ones if it is long.

    `cut` when even MAX_WINDOWS windows do not hold it.
    """

    windows: list[list[int]]
    cut: bool


@dataclass(frozen=True)
class Head:
    """One task of a model, and which columns of its logits are the task's, in the order of the labels."""

    task: str
    labels: tuple[str, ...]
    calibration: Calibration
    columns: slice
    scope: Scope | None = None  # None: it does not tell what is out of scope, but by a label for it

    @cached_property
    def outside(self) -> int | None:
        """Which of the labels stands for out of scope, if one does."""
        return outside_column(self.labels)

    def probabilities(self, logits: Floats) -> Floats:
        """Calibrated probabilities [n, labels] from a model's logits [n, columns]; every row adds up to 1."""
        return softmax(self.calibration.applied(logits[:, self.columns]))

    def scores(self, logits: Floats) -> Floats:
        """Calibrated probabilities, and where the head has a scope one column more: how familiar each text is."""
        probabilities = self.probabilities(logits)
        return probabilities if self.scope is None else np.column_stack([probabilities, self.familiarity(logits)])

    def familiarity(self, logits: Floats) -> Floats:
        """How familiar texts are [n], from a model's logits [n, columns]: see `models.out_of_scope`."""
        return familiarity(logits[:, self.columns], self.outside)

    def is_outside(self, probabilities: Floats, familiarity: Floats) -> npt.NDArray[np.bool_]:
        """Which texts [n] are out of scope: by their best label, or less familiar than the scope wants."""
        outside: npt.NDArray[np.bool_] = probabilities.argmax(axis=1) == (-1 if self.outside is None else self.outside)
        if self.scope is not None:
            outside |= np.round(familiarity.astype(np.float64), DIGITS) < self.scope.familiar_from
        return outside


class Model:
    """A loaded release. All methods may be called from several threads at once; `slots` of them are worth while."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, runtime: Runtime) -> None:
        """Put a tokenizer and a runtime together; the tokenizer is the model's own from here on."""
        self.release = manifest.release
        self.max_tokens = manifest.max_tokens
        self.heads: Mapping[str, Head] = MappingProxyType({head.task: head for head in heads_of(manifest.heads)})
        self.runtime = runtime.name
        self.device = runtime.device
        self.slots = runtime.slots
        self.packs = runtime.packs
        self.columns = sum(len(head.labels) for head in manifest.heads)
        self._runtime = runtime
        self._tokenizer = tokenizer
        self.pad_id = pad_id(tokenizer)
        self._most_chars = MAX_WINDOWS * manifest.max_tokens * MAX_CHARS_A_TOKEN
        tokenizer.no_padding()
        tokenizer.enable_truncation(manifest.max_tokens, stride=overlap_tokens(manifest.max_tokens))

    @classmethod
    def load(
        cls,
        directory: Path,
        device: Device = "auto",
        runtime: str = "auto",
        threads: int | None = None,
        verify: bool = True,
    ) -> "Model":
        """Load the release in a directory; `threads` bounds the CPU cores it takes.

        Raises IntegrityError for a damaged release, DeviceUnavailable and RuntimeUnavailable for what is not there.
        """
        manifest = verified_manifest(directory) if verify else read_manifest(directory)
        try:
            tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise IntegrityError(f"{directory / TOKENIZER}: cannot be loaded: {error}") from error
        columns = [head.columns for head in heads_of(manifest.heads)]
        model = cls(manifest, tokenizer, open_runtime(directory, device, runtime, threads, columns))
        found = model.logits(model.encode([""])[0].windows).shape[1]
        if found != model.columns:
            raise IntegrityError(f"{directory}: the model gives {found} columns, its labels are {model.columns}")
        return model

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text."""
        # One call a text: a single text never enters the tokenizers library's own thread pool, and measures as fast.
        return [self._encode(text) for text in texts]

    def spans(self, text: str) -> list[list[Span]]:
        """Where in a text each token stands, for each window that `encode` makes of it; special tokens are nowhere.

        Positions count characters (Unicode code points), so that `text[start:end]` is what the token was read from.
        """
        return [encoding.offsets for encoding in self._read(text)[0]]

    def _encode(self, text: str) -> Encoded:
        encodings, cut = self._read(text)
        return Encoded([encoding.ids for encoding in encodings], cut)

    def _read(self, text: str) -> tuple[list[Encoding], bool]:
        cut = len(text) > self._most_chars
        text = text[: self._most_chars]
        try:
            encoding = self._tokenizer.encode(text)
        except TypeError:  # half of a surrogate pair, which JSON can carry and UTF-8 cannot
            encoding = self._tokenizer.encode(text.encode("utf-8", "replace").decode())
        further: list[Encoding] = encoding.overflowing
        return [encoding, *further[: MAX_WINDOWS - 1]], cut or len(further) >= MAX_WINDOWS

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """What a batch of windows of so many tokens comes to, padding counted."""
        return self._runtime.padded_tokens(lengths)

    def run(self, windows: Sequence[Sequence[int]]) -> dict[str, Floats]:
        """The scores [windows, labels] of one batch, by task: see `Head.scores`."""
        logits = self.logits(windows)
        return {task: head.scores(logits) for task, head in self.heads.items()}

    def logits(self, windows: Sequence[Sequence[int]]) -> Floats:
        """Raw logits [windows, columns] of one batch, padded to its longest window."""
        if not windows:
            return np.zeros((0, self.columns), np.float32)
        return self._runtime.run(*padded(windows, self.pad_id))


class Classifier:
    """One task of a model: texts in, one row of calibrated probabilities a text out, however long it is."""

    def __init__(self, model: Model, task: Task) -> None:
        """The model must have a head for the task."""
        self.model = model
        self.release = model.release
        self.task = task.name
        self.labels = model.heads[task.name].labels
        self.head = model.heads[task.name]
        self._rule = task.long_text
        self._alert_columns = task.alert_columns(self.labels)

    @classmethod
    def load(
        cls, directory: Path, task: Task, device: Device = "auto", runtime: str = "auto", threads: int | None = None
    ) -> "Classifier":
        """Load the release in a directory for one of its tasks; see `Model.load`."""
        return cls(Model.load(directory, device, runtime, threads), task)

    def classify(self, texts: Sequence[str]) -> Floats:
        """Calibrated probabilities [n, labels] of any number of texts, in their order; long ones merged by the rule."""
        reading = self.read(texts)
        return self.by_text(reading, self.head.probabilities(reading.logits))

    def read(self, texts: Sequence[str]) -> Reading:
        """Any number of texts, in their order."""
        encoded = self.model.encode(texts)
        windows = [[len(window) for window in one.windows] for one in encoded]
        return Reading(self._logits([window for one in encoded for window in one.windows]), windows)

    def scored(self, reading: Reading) -> tuple[Floats, Floats]:
        """Calibrated probabilities [n, labels], and how familiar each text is [n]."""
        logits = reading.logits
        rows = self.by_text(reading, np.column_stack([self.head.probabilities(logits), self.head.familiarity(logits)]))
        return rows[:, :-1], rows[:, -1]

    def by_text(self, reading: Reading, rows: Floats) -> Floats:
        """One row a text, from the rows of all windows."""
        if len(rows) == len(reading.windows):
            return rows
        ends = accumulate(map(len, reading.windows))
        return np.stack(
            [
                self.merged(rows[end - len(lengths) : end], lengths)
                for lengths, end in zip(reading.windows, ends, strict=True)
            ]
        )

    def merged(self, rows: Floats, lengths: Sequence[int]) -> Floats:
        """One row [labels or more] for a text from the rows of its windows of so many tokens."""
        return merge(rows, lengths, self._rule, self._alert_columns)

    def rows(self, windows: Sequence[Sequence[int]]) -> Floats:
        """Probabilities [windows, labels]."""
        return self.head.probabilities(self._logits(windows))

    def _logits(self, windows: Sequence[Sequence[int]]) -> Floats:
        """Logits [windows, columns], in batches of similar length, as many at once as the model has slots."""
        rows = np.zeros((len(windows), self.model.columns), np.float32)
        batches = length_sorted_batches([len(window) for window in windows], BATCH_TOKENS[self.model.device])

        def run(batch: list[int]) -> None:
            rows[batch] = self.model.logits([windows[row] for row in batch])

        if len(batches) <= 1:  # a thread would cost more than it saves
            for batch in batches:
                run(batch)
            return rows
        with ThreadPoolExecutor(self.model.slots) as pool:
            for _ in pool.map(run, batches):  # the first failure is raised here
                pass
        return rows


def heads_of(entries: Sequence[HeadEntry]) -> list[Head]:
    """The heads of a manifest with their columns, one after the other."""
    ends = list(accumulate(len(entry.labels) for entry in entries))
    return [
        Head(entry.task, entry.labels, entry.calibration, slice(end - len(entry.labels), end), entry.scope)
        for entry, end in zip(entries, ends, strict=True)
    ]


def pad_id(tokenizer: Tokenizer) -> int:
    """The token id that fills a batch up, as the tokenizer file says it."""
    return int((tokenizer.padding or {}).get("pad_id", 0))
