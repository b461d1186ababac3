"""A checkpoint becomes a release: an ONNX graph that must give the checkpoint's own logits, calibrated and graded."""

import json
import logging
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from models import releases
from models.cards import with_card
from models.classifier import Classifier, Model, pad_id
from models.embeddings import text_vectors
from models.errors import ExportMismatch
from models.evaluation import Judged, fit_scope, judge, summary
from models.golden import GOLDEN, GOLDEN_TEXTS, Golden, read_golden, write_golden
from models.learning.profiles import PROFILE, PROFILE_VECTORS, Profile, profile_of, write_profiles
from models.lineage import Parent, this_code
from models.network import TextClassifier
from models.packed_export import OPSET, export_packed
from models.padding import padded
from models.releases import CONFIG, MODEL, PACKED, TOKENIZER, HeadEntry, Manifest
from models.runtimes import Floats, Ids, Runtime
from models.runtimes.measuring import golden_batches, golden_logits
from models.runtimes.onnx import load_cpu, load_packed_cpu
from models.runtimes.parity import EXACT, distance, problem
from models.runtimes.protocol import cores
from models.training import Checkpoint, Progress, TrainedHead, encode

PARITY_TOLERANCE = 1e-3  # logits; float32 sums in another order differ by about 1e-6
PARITY_TEXTS = 64
PARITY_BATCHES = (1, 3, 8, 17)  # taken in turn, so that batch and sequence axes both vary
FILES = (MODEL, PACKED, TOKENIZER, CONFIG, GOLDEN)
DEV_GRADES = (
    "n",
    "accuracy",
    "macro_f1",
    "ece",
    "ece_uncalibrated",
    "ece_floor",
    "auc",
    "average_precision",
    "per_label",
)
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu", "tokenizers", "numpy")


def make_release(
    checkpoint: Checkpoint, recipe: str, out: Path | None, progress: Progress, parent: Parent | None = None
) -> Path:
    """Export, compare, grade on the development examples, and publish as `out` (None: under `releases.home()`).

    `parent` is the release that this one was made from or is to replace: it goes into the manifest and onto the card.
    Raises ExportMismatch when a graph's logits differ from the checkpoint's by more than PARITY_TOLERANCE, or fail the
    gate on the golden set, and ReleaseExists when `out` holds something else.
    """
    folder = out.parent if out else releases.home() / "releases" / "-".join(_tasks(checkpoint))
    with releases.workplace(folder) as tmp_dir:
        progress("export", 0, 2)
        export_graph(checkpoint.model, tmp_dir / MODEL)
        packed = export_packed(checkpoint.model, tmp_dir)
        checkpoint.tokenizer.save(str(tmp_dir / TOKENIZER))
        (tmp_dir / CONFIG).write_text(_config(checkpoint), encoding="utf-8")
        windows = encode(checkpoint.tokenizer, held_out(checkpoint, GOLDEN_TEXTS), checkpoint.max_tokens)
        write_golden(tmp_dir, windows, _logits(_source(checkpoint), windows, pad_id(checkpoint.tokenizer)))
        manifest = _manifest(checkpoint, recipe, tmp_dir, parent)
        releases.write_manifest(tmp_dir, manifest)
        progress("compare and grade", 1, 2)
        runtime = load_cpu(tmp_dir, cores())
        parity = _gated(checkpoint, runtime, tmp_dir)
        if packed:
            parity["packed"] = _gated(checkpoint, load_packed_cpu(tmp_dir, cores()), tmp_dir)
        model = Model(manifest, Tokenizer.from_file(str(tmp_dir / TOKENIZER)), runtime)
        graded = [_graded(entry, model, head) for entry, head in zip(manifest.heads, checkpoint.heads, strict=True)]
        heads = [entry for entry, _ in graded]
        write_profiles(
            tmp_dir,
            {
                head.task.name: _profile(tmp_dir, model, head, judged, progress)
                for head, (_, judged) in zip(checkpoint.heads, graded, strict=True)
            },
        )
        files = {**manifest.files, PROFILE: releases.file_sha256(tmp_dir / PROFILE)}
        metrics = {"parity": parity, "best_epoch": checkpoint.best_epoch, **checkpoint.notes}
        changes = {"heads": tuple(heads), "metrics": metrics, "files": files}
        manifest = with_card(tmp_dir, manifest.model_copy(update=changes))
        releases.write_manifest(tmp_dir, manifest)
        dest = releases.publish(tmp_dir, out or folder / manifest.release)
        progress("done", 2, 2)
        return dest


def held_out(checkpoint: Checkpoint, count: int) -> list[str]:
    """Up to `count` texts that the model did not learn from, of each task in turn."""
    texts = [[example.text for example in head.dev_examples] for head in checkpoint.heads]
    in_turn = (text for turn in zip_longest(*texts) for text in turn if text is not None)
    return list(islice(in_turn, count))


def export_graph(model: TextClassifier, path: Path) -> None:
    """Write the model as one ONNX file: int64 ids and mask [batch, sequence] to logits [batch, columns]."""
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
    for node in program.model.graph:
        node.metadata_props.clear()  # where each operator stood in the source, with paths of this machine
    program.save(path, external_data=False)


def compare(checkpoint: Checkpoint, runtime: Runtime) -> dict[str, Any]:
    """How far the graph is from its source, over held-out texts of mixed lengths in batches of mixed sizes.

    Raises ExportMismatch beyond PARITY_TOLERANCE.
    """
    texts = held_out(checkpoint, PARITY_TEXTS)
    texts += [" ".join(texts), ""]  # and the longest and the shortest there can be
    windows, fill = encode(checkpoint.tokenizer, texts, checkpoint.max_tokens), pad_id(checkpoint.tokenizer)
    graph, source = _logits(runtime.run, windows, fill), _logits(_source(checkpoint), windows, fill)
    difference = float(np.abs(graph - source).max())
    if not difference <= PARITY_TOLERANCE:  # a NaN is refused too
        raise ExportMismatch(
            f"the exported graph's logits differ from the checkpoint's by {difference:.2g}, allowed {PARITY_TOLERANCE}"
        )
    agreements = [
        (graph[:, head.columns].argmax(axis=1) == source[:, head.columns].argmax(axis=1)).mean()
        for head in checkpoint.heads
    ]
    return {"texts": len(texts), "max_abs_logit_difference": difference, "label_agreement": float(np.mean(agreements))}


def pass_golden(runtime: Runtime, golden: Golden, heads: Sequence[slice]) -> dict[str, Any]:
    """How far a graph is from its source on the golden set, each head's columns apart.

    Raises ExportMismatch when more than DIFFERENT_LABELS of the texts get another label, or a probability is further
    off than EXACT: the gate of a release in float32 wherever it is served (`models.runtimes.parity`).
    """
    logits = golden_logits(runtime, golden_batches(golden, "cpu"))
    if why := problem(logits, golden.logits, EXACT, heads):
        raise ExportMismatch(f"the exported graph, run by {runtime.name}, {why}")
    found = [distance(logits, golden.logits, columns) for columns in heads]
    return {
        "texts": len(golden.windows),
        "different_labels": max(one.different_labels for one in found),
        "furthest_score": max(one.furthest for one in found),
    }


def _gated(checkpoint: Checkpoint, runtime: Runtime, directory: Path) -> dict[str, Any]:
    golden = read_golden(directory)
    assert golden is not None  # noqa: S101 - it was written just now
    return compare(checkpoint, runtime) | {
        "golden": pass_golden(runtime, golden, [head.columns for head in checkpoint.heads])
    }


def _source(checkpoint: Checkpoint) -> Callable[[Ids, Ids], Floats]:
    def run(input_ids: Ids, attention_mask: Ids) -> Floats:
        with torch.inference_mode():
            logits: Floats = checkpoint.model(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).numpy()
        return logits

    return run


def _logits(run: Callable[[Ids, Ids], Floats], windows: Sequence[Sequence[int]], fill: int) -> Floats:
    rows, sizes, start = [], cycle(PARITY_BATCHES), 0
    while start < len(windows):
        size = next(sizes)
        rows.append(run(*padded(windows[start : start + size], fill)))
        start += size
    return np.concatenate(rows)


def _graded(entry: HeadEntry, model: Model, head: TrainedHead) -> tuple[HeadEntry, Judged]:
    classifier = Classifier(model, head.task)
    judged = judge(classifier, [*head.dev_examples, *head.strangers])
    grades = summary(classifier, judged).model_dump(include=set(DEV_GRADES), exclude_none=True)
    scope = fit_scope(classifier.head, judged, head.task)
    return entry.model_copy(update={"metrics": {"dev": grades}, "scope": scope}), judged


def _profile(directory: Path, model: Model, head: TrainedHead, judged: Judged, progress: Progress) -> Profile:
    texts = [one.text for one in judged.examples]
    windows = [one.windows for one in model.encode(texts)]
    sample = random.Random(0).sample(texts, min(PROFILE_VECTORS, len(texts)))  # noqa: S311 - no secret
    vectors = text_vectors(directory, Classifier(model, head.task), sample, progress)
    return profile_of(judged, windows, head.known_tokens, vectors)


def _tasks(checkpoint: Checkpoint) -> list[str]:
    return [head.task.name for head in checkpoint.heads]


def _config(checkpoint: Checkpoint) -> str:
    """The encoder's configuration, without the path it was loaded from."""
    encoder: Any = checkpoint.model.encoder
    config = {name: value for name, value in encoder.config.to_dict().items() if not name.startswith("_")}
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def _manifest(checkpoint: Checkpoint, recipe: str, directory: Path, parent: Parent | None) -> Manifest:
    files = {name: releases.file_sha256(directory / name) for name in FILES if (directory / name).is_file()}
    created_at = datetime.now(UTC)
    return Manifest(
        release=releases.release_id(
            _tasks(checkpoint), created_at, files, [head.data.sha256 for head in checkpoint.heads]
        ),
        heads=tuple(
            HeadEntry(
                task=head.task.name,
                labels=head.labels,
                temperature=head.calibration.temperature,
                bends=head.calibration.bends,
                data=head.data,
                metrics={},
            )
            for head in checkpoint.heads
        ),
        max_tokens=checkpoint.max_tokens,
        base=checkpoint.base,
        metrics={},
        versions=_versions(),
        created_at=created_at,
        files=files,
        method=checkpoint.settings.method,
        seed=checkpoint.settings.seed,
        recipe=recipe,
        code=this_code(),
        parent=parent,
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ImportError:  # PackageNotFoundError: only one of the two onnxruntime packages is installed
            continue
    return found
