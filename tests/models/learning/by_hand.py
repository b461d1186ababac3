"""Releases that know words: each speaks for one label, and a text's scores follow from the words in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from models.golden import GOLDEN, write_golden
from models.releases import MODEL, TOKENIZER, Base, Data, HeadEntry, Manifest, file_sha256, write_manifest
from tests.streams.handmade import save_graph

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def make_release(
    folder: Path,
    words: Mapping[str, str],
    labels: Sequence[str],
    *,
    task: str = "tone",
    strength: float = 9.0,
    golden: bool = True,
    max_tokens: int = 64,
) -> Path:
    """A release that gives the label of a known word the logit `strength`; unknown words speak for none."""
    folder.mkdir(parents=True)
    table = np.zeros((len(SPECIAL) + len(words), len(labels)), np.float32)
    for row, label in enumerate(words.values(), len(SPECIAL)):
        table[row, labels.index(label)] = strength
    save_graph(folder / MODEL, table)
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / TOKENIZER))
    files = [MODEL, TOKENIZER]
    if golden:
        windows = [[2, row, 3] for row in range(len(SPECIAL), len(table))]
        write_golden(folder, windows, table[len(SPECIAL) :])
        files.append(GOLDEN)
    data = Data(name="by-hand", sha256="0" * 64, rows=2)
    head = HeadEntry(task=task, labels=tuple(labels), temperature=1.0, data=data, metrics={})
    manifest = Manifest(
        release=folder.name, heads=(head,), max_tokens=max_tokens, base=Base(name="by-hand", sha256="0" * 64),
        metrics={}, versions={}, created_at=datetime(2026, 3, 1, tzinfo=UTC), method="by hand", seed=0, recipe="none",
        files={name: file_sha256(folder / name) for name in files},
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder
