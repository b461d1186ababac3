"""A release at work, in three phases: text -> token ids -> logits -> calibrated probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from models.errors import DeviceUnavailable, IntegrityError
from models.releases import MODEL, TOKENIZER, Manifest, read_manifest
from models.releases import verify as verified_manifest
from models.runtime import Device, Floats, Ids, OnnxRuntime, Runtime

BATCH_TOKENS = 2048  # padded tokens in one batch of `classify`: past it the CPU's caches give no more speed


class Encoded(NamedTuple):
    """A text as token ids, special tokens included; `cut` when the text was longer than `max_tokens`."""

    ids: list[int]
    cut: bool


class Classifier:
    """A loaded release. All methods may be called from several threads at once."""

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, runtime: Runtime) -> None:
        """Put a tokenizer and a runtime together; the tokenizer is the classifier's own from here on."""
        self.release = manifest.release
        self.task = manifest.task
        self.labels = manifest.labels
        self.max_tokens = manifest.max_tokens
        self.temperature = manifest.temperature
        self.device = runtime.device
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._pad_id = pad_id(tokenizer)
        tokenizer.no_padding()
        tokenizer.enable_truncation(manifest.max_tokens)

    @classmethod
    def load(
        cls, directory: Path, device: Device = "auto", threads: int | None = None, verify: bool = True
    ) -> "Classifier":
        """Load the release in a directory; `threads` bounds the CPU cores of one run.

        Raises IntegrityError for a damaged release and DeviceUnavailable for a device that is not there.
        """
        manifest = verified_manifest(directory) if verify else read_manifest(directory)
        try:
            tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise IntegrityError(f"{directory / TOKENIZER}: cannot be loaded: {error}") from error
        try:
            runtime = OnnxRuntime(directory / MODEL, device, threads)
        except DeviceUnavailable:
            raise
        except Exception as error:  # so do onnxruntime's errors derive from Exception alone
            raise IntegrityError(f"{directory / MODEL}: cannot be loaded: {error}") from error
        return cls(manifest, tokenizer, runtime)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Token ids of each text, 2..max_tokens of them."""
        # One call a text: a single text never enters the tokenizers library's own thread pool, and measures as fast.
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> Encoded:
        try:
            encoding = self._tokenizer.encode(text)
        except TypeError:  # half of a surrogate pair, which JSON can carry and UTF-8 cannot
            encoding = self._tokenizer.encode(text.encode("utf-8", "replace").decode())
        return Encoded(encoding.ids, bool(encoding.overflowing))

    def run(self, batch: Sequence[Encoded]) -> Floats:
        """Calibrated probabilities [n, labels] of one batch; every row adds up to 1."""
        return softmax(self.logits(batch) / np.float32(self.temperature))

    def logits(self, batch: Sequence[Encoded]) -> Floats:
        """Raw logits [n, labels] of one batch, padded to its longest text."""
        if not batch:
            return np.zeros((0, len(self.labels)), np.float32)
        ids, mask = padded(batch, self._pad_id)
        return self._runtime.run(ids, mask)

    def classify(self, texts: Sequence[str]) -> Floats:
        """Calibrated probabilities [n, labels] of any number of texts, in batches of similar length."""
        return softmax(self.classify_logits(texts) / np.float32(self.temperature))

    def classify_logits(self, texts: Sequence[str]) -> Floats:
        """Raw logits [n, labels] of any number of texts, in the order of the texts."""
        encoded = self.encode(texts)
        logits = np.zeros((len(encoded), len(self.labels)), np.float32)
        for rows in length_sorted_batches([len(item.ids) for item in encoded], BATCH_TOKENS):
            logits[rows] = self.logits([encoded[row] for row in rows])
        return logits


def pad_id(tokenizer: Tokenizer) -> int:
    """The token id that fills a batch up, as the tokenizer file says it."""
    return int((tokenizer.padding or {}).get("pad_id", 0))


def padded(batch: Sequence[Encoded], fill: int) -> tuple[Ids, Ids]:
    """Token ids and attention mask, both [n, t], t being the longest text's tokens."""
    longest = max(len(item.ids) for item in batch)
    ids = np.full((len(batch), longest), fill, np.int64)
    mask = np.zeros((len(batch), longest), np.int64)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = item.ids
        mask[row, : len(item.ids)] = 1
    return ids, mask


def length_sorted_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Row numbers in batches of similar length, each within `batch_tokens` padded tokens (or a single row)."""
    batches: list[list[int]] = []
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[row] * (len(batch) + 1) > batch_tokens:
            batches.append(batch)
            batch = []
        batch.append(row)
    return [*batches, batch] if batch else batches


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Probabilities over the last axis; the row maximum is taken off first, so that no exponential overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    probabilities: Floats = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probabilities
