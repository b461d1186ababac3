"""Releases made by hand: a text's logits are sums over its words, so that no training is needed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from models.releases import MODEL, TOKENIZER, Base, Data, HeadEntry, Manifest, file_sha256, write_manifest

WORDS = ("falls", "opens", "rises", "rent", "mule")  # each speaks for one label, in their order


def make_release(
    folder: Path, heads: Mapping[str, tuple[str, ...]], max_tokens: int = 16, name: str = "by-hand"
) -> Path:
    """A release whose words speak for one label each; labels beyond the words have none."""
    folder.mkdir(parents=True)
    labels = [label for one in heads.values() for label in one]
    table = np.zeros((4 + len(WORDS), len(labels)), np.float32)
    for column in range(min(len(labels), len(WORDS))):
        table[4 + column, column] = 3.0
    save_graph(folder / MODEL, table)
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / TOKENIZER))
    data = Data(name="by-hand", sha256="0" * 64, rows=2)
    manifest = Manifest(
        release="-".join([*heads, name]),
        heads=tuple(HeadEntry(task=t, labels=one, temperature=1.0, data=data, metrics={}) for t, one in heads.items()),
        max_tokens=max_tokens, base=Base(name="by-hand", sha256="0" * 64), metrics={}, versions={},
        created_at=datetime(2026, 3, 1, tzinfo=UTC), method="by hand", seed=0, recipe="none",
        files={name: file_sha256(folder / name) for name in (MODEL, TOKENIZER)},
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


def save_graph(path: Path, table: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    """logits = the sum, over the tokens of a text that are not padding, of their rows in the table."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["read"]),
        helper.make_node("ReduceSum", ["read", "tokens"], ["logits"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in
              ("input_ids", "attention_mask")]  # fmt: skip
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", table.shape[1]])
    constants = {"table": table, "last": np.array([2]), "tokens": np.array([1])}
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "by-hand", inputs, [output], initial)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
