"""A checkpoint becomes a release: an ONNX graph that must give the checkpoint's own logits, calibrated and graded."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from models import releases
from models.classifier import Classifier, pad_id, padded
from models.datasets import Example, data_hash
from models.errors import ExportMismatch
from models.evaluation import evaluate
from models.releases import MODEL, TOKENIZER, Base, Data, Manifest
from models.runtime import OnnxRuntime
from models.training import Checkpoint, Progress, TextClassifier, encode

OPSET = 20  # the first with a Gelu operator
PARITY_TOLERANCE = 1e-3  # logits; float32 sums in another order differ by about 1e-6
PARITY_TEXTS = 64
PARITY_BATCHES = (1, 3, 8, 17)  # taken in turn, so that batch and sequence axes both vary
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")


def make_release(
    checkpoint: Checkpoint,
    train_examples: Sequence[Example],
    data_name: str,
    recipe: str,
    out: Path | None,
    progress: Progress,
) -> Path:
    """Export, compare, grade on the development examples, and publish as `out` (None: under `releases.home()`).

    Raises ExportMismatch when the graph's logits differ from the checkpoint's by more than PARITY_TOLERANCE, and
    ReleaseExists when `out` holds something else.
    """
    folder = out.parent if out else releases.home() / "releases" / checkpoint.task.name
    with releases.workplace(folder) as tmp_dir:
        progress("export", 0, 2)
        export_graph(checkpoint.model, tmp_dir / MODEL)
        checkpoint.tokenizer.save(str(tmp_dir / TOKENIZER))
        manifest = _manifest(checkpoint, train_examples, data_name, recipe, tmp_dir)
        runtime = OnnxRuntime(tmp_dir / MODEL, "cpu")
        progress("compare and grade", 1, 2)
        parity = compare(checkpoint, runtime)
        classifier = Classifier(manifest, Tokenizer.from_file(str(tmp_dir / TOKENIZER)), runtime)
        grades = evaluate(classifier, checkpoint.dev_examples)
        metrics = {
            "dev": grades.model_dump(include={"n", "accuracy", "macro_f1", "ece"}),
            "parity": parity,
            "best_epoch": checkpoint.best_epoch,
        }
        manifest = manifest.model_copy(update={"metrics": metrics})
        releases.write_manifest(tmp_dir, manifest)
        dest = releases.publish(tmp_dir, out or folder / manifest.release)
        progress("done", 2, 2)
        return dest


def export_graph(model: TextClassifier, path: Path) -> None:
    """Write the model as one ONNX file: int64 input_ids, attention_mask [batch, sequence] -> logits [batch, labels]."""
    # The exporter looks for an optional package that text models never need, and says so once for every operator.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    ids = torch.ones((2, 7), dtype=torch.int64)  # any sizes but 0 and 1, which an exporter takes for constants
    names = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    alike = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        model.eval(),
        (ids, torch.ones_like(ids)),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes=(names, alike),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # noqa: S101 - with dynamo=True it never is
    program.save(path, external_data=False)


def compare(checkpoint: Checkpoint, runtime: OnnxRuntime) -> dict[str, Any]:
    """How far the graph is from its source, over held-out texts of mixed lengths in batches of mixed sizes.

    Raises ExportMismatch beyond PARITY_TOLERANCE.
    """
    held_out = [example.text for example in checkpoint.dev_examples[:PARITY_TEXTS]]
    texts = [*held_out, " ".join(held_out), ""]  # and the longest and the shortest there can be
    encoded = encode(checkpoint.tokenizer, texts, checkpoint.task.max_tokens)
    start, turn, ours, theirs = 0, 0, [], []
    while start < len(encoded):
        batch = encoded[start : start + PARITY_BATCHES[turn % len(PARITY_BATCHES)]]
        ids, mask = padded(batch, pad_id(checkpoint.tokenizer))
        with torch.inference_mode():
            theirs.append(checkpoint.model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy())
        ours.append(runtime.run(ids, mask))
        start, turn = start + len(batch), turn + 1
    graph, source = np.concatenate(ours), np.concatenate(theirs)
    difference = float(np.abs(graph - source).max())
    if not difference <= PARITY_TOLERANCE:  # a NaN is refused too
        raise ExportMismatch(
            f"the exported graph's logits differ from the checkpoint's by {difference:.2g}, allowed {PARITY_TOLERANCE}"
        )
    agreement = float((graph.argmax(axis=1) == source.argmax(axis=1)).mean())
    return {"texts": len(texts), "max_abs_logit_difference": difference, "label_agreement": agreement}


def _manifest(
    checkpoint: Checkpoint, train_examples: Sequence[Example], data_name: str, recipe: str, directory: Path
) -> Manifest:
    files = {name: releases.file_sha256(directory / name) for name in (MODEL, TOKENIZER)}
    data = Data(name=data_name, sha256=data_hash(train_examples), rows=len(train_examples))
    created_at = datetime.now(UTC)
    return Manifest(
        release=releases.release_id(checkpoint.task.name, created_at, files, data.sha256),
        task=checkpoint.task.name,
        labels=checkpoint.labels,
        max_tokens=checkpoint.task.max_tokens,
        temperature=checkpoint.temperature,
        base=Base(name=checkpoint.base_name, sha256=checkpoint.base_sha256),
        data=data,
        metrics={},
        versions=_versions(),
        created_at=created_at,
        files=files,
        method=checkpoint.settings.method,
        seed=checkpoint.settings.seed,
        recipe=recipe,
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ImportError:  # PackageNotFoundError: only one of the two onnxruntime packages is installed
            continue
    return found
