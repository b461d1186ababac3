"""A release in fewer bits: each precision's size, speed and loss, and the gate that lets one become a release.

    float32 release -> graph of a precision -> golden set (its source's logits) -> labelled data -> accepted or refused

The gate compares with the trained model itself, whose logits the golden set holds, and not with the float32 graph.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, get_args

import onnx
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from models import quantization, releases
from models.cards import with_card
from models.classifier import Classifier, Model, pad_id
from models.datasets import Example
from models.errors import BadDataset, BadRelease, ExportMismatch
from models.evaluation import Evaluation, evaluate
from models.golden import GOLDEN, Golden, read_golden
from models.learning.profiles import PROFILE
from models.lineage import this_code
from models.padding import length_sorted_batches, padded
from models.releases import CONFIG, MODEL, TOKENIZER, Manifest, Precision
from models.runtimes import Device, Ids, Runtime
from models.runtimes.measuring import golden_batches, golden_logits
from models.runtimes.onnx import load_cpu, load_int8_cpu
from models.runtimes.parity import DIFFERENT_LABELS, EXACT, Distance, distance
from models.runtimes.protocol import cores
from models.tasks import Task

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# How far a probability may be from the trained model's, over the golden set.
TOLERANCES: dict[Precision, float] = {"fp32": EXACT, "fp16": 0.01, "int8-dynamic": 0.2, "int8-static": 0.2}
MAX_F1_LOSS = 0.005  # what int8 may cost of a task's macro-F1

CALIBRATION_TEXTS = 256
CALIBRATION_TOKENS = 512  # padded, of one batch
MEBIBYTE = 1 << 20

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


class Grade(BaseModel):
    """One task in one precision, on n labelled texts; `lost` is how much less its macro-F1 is than in float32."""

    model_config = ConfigDict(frozen=True)

    n: int
    accuracy: float
    macro_f1: float
    ece: float
    lost: float


class Variant(BaseModel):
    """A release in one precision, measured as it would be served on this machine.

    `different_labels` (a share) and `furthest_score` (a probability) are the worst of its heads on the golden set;
    `refused` says why it may not become a release.
    """

    model_config = ConfigDict(frozen=True)

    precision: Precision
    size_mib: float
    runtime: str
    p50_ms: float
    p99_ms: float
    per_event_ms: float
    grades: dict[str, Grade]
    different_labels: float
    furthest_score: float
    refused: str | None


class Graded(NamedTuple):
    """A task with the labelled texts it is graded on."""

    task: Task
    examples: Sequence[Example]


def compress(
    directory: Path,
    tasks: Sequence[Graded],
    calibration: Sequence[str],
    workplace: Path,
    progress: Progress,
    precisions: Sequence[Precision] = PRECISIONS,
    device: Device = "auto",
) -> list[Variant]:
    """Measure a float32 release in each precision; `workplace/PRECISION` is then a release in it, to be kept or not.

    Args:
        directory: the release.
        tasks: all it serves, each with labelled texts.
        calibration: texts for the fixed ranges of int8-static, CALIBRATION_TEXTS of them at most; best such as it was
            trained on. Without any, its golden texts serve.
        workplace: an empty directory.
        progress: told what is done.
        precisions: which, of PRECISIONS.
        device: where it is to serve; int8 serves on the CPU, whatever this says.

    Raises BadRelease for one that is compressed already or has no golden set, BadDataset for a task without examples.
    """
    manifest, golden = _source(directory, tasks)
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    batches = _batches(tokenizer, manifest.max_tokens, golden, calibration)
    progress("float32, as the measure", 0, len(precisions) + 1)
    measure = {one.task.name: grade.macro_f1 for one, grade in _graded(_reference(directory)[1], tasks)}
    variants = []
    for step, precision in enumerate(precisions, 1):
        progress(precision, step, len(precisions) + 1)
        folder = workplace / precision
        folder.mkdir()
        _write(directory, manifest, precision, batches, folder)
        variants.append(_measured(folder, golden, tasks, measure, device))
    progress("done", len(precisions) + 1, len(precisions) + 1)
    return variants


def keep(variant: Variant, built: Path, out: Path | None = None) -> Path:
    """Publish what `compress` built in the folder `built`, as `out` or among the other releases.

    Raises ExportMismatch when the gate refused it, ReleaseExists when `out` holds something else.
    """
    if variant.refused:
        raise ExportMismatch(f"{variant.precision} is refused: it {variant.refused}")
    manifest = releases.read_manifest(built)
    heads = tuple(
        head.model_copy(update={"metrics": {"dev": variant.grades[head.task].model_dump(exclude={"lost"})}})
        for head in manifest.heads
    )
    created_at, data = datetime.now(UTC), [head.data.sha256 for head in heads]
    changes = {
        "release": releases.release_id(manifest.tasks, created_at, manifest.files, data),
        "heads": heads,
        "metrics": {"compression": {"from": manifest.release, **variant.model_dump(exclude={"refused"})}},
        "created_at": created_at,
        "recipe": "compress",
    }
    manifest = with_card(built, manifest.model_copy(update=changes))
    releases.write_manifest(built, manifest)
    folder = releases.home() / "releases" / "-".join(manifest.tasks)
    return releases.publish(built, out or folder / manifest.release)


def best(variants: Sequence[Variant]) -> Variant:
    """The fastest in batches of those in fewer bits that may be released. Raises ExportMismatch when none may."""
    accepted = [one for one in variants if one.precision != "fp32" and not one.refused]
    if not accepted:
        reasons = "; ".join(f"{one.precision}: it {one.refused}" for one in variants if one.refused)
        raise ExportMismatch(f"no precision below float32 is accepted: {reasons}")
    return min(accepted, key=lambda one: one.per_event_ms)


def refusal(precision: Precision, distances: Mapping[str, Distance], lost: Mapping[str, float]) -> str | None:
    """Why a precision may not be released, or None: by task its distance on the golden set and its loss of macro-F1."""
    for task, (different, furthest) in distances.items():
        if not different <= DIFFERENT_LABELS:
            return f"gives another label for {different:.1%} of the {task} golden set, allowed {DIFFERENT_LABELS:.1%}"
        if not furthest <= TOLERANCES[precision]:  # a NaN is refused too
            allowed = TOLERANCES[precision]
            return f"gives {task} scores up to {furthest:.2g} from the trained model's, allowed {allowed:g}"
    for task, loss in lost.items():
        if precision.startswith("int8") and not loss <= MAX_F1_LOSS:
            return f"loses {100 * loss:.2f} points of {task} macro-F1, allowed {100 * MAX_F1_LOSS:g}"
    return None


def _source(directory: Path, tasks: Sequence[Graded]) -> tuple[Manifest, Golden]:
    manifest = releases.verify(directory)
    if manifest.precision != "fp32":
        raise BadRelease(f"{directory}: is in {manifest.precision} already; compress the release it was made from")
    golden = read_golden(directory)
    if golden is None:
        raise BadRelease(f"{directory}: has no {GOLDEN} to compare with; train it again")
    if missing := set(manifest.tasks) - {one.task.name for one in tasks}:
        raise BadDataset(f"{directory}: serves {min(missing)} too: give labelled texts for each of its tasks")
    return manifest, golden


def _batches(
    tokenizer: Tokenizer, max_tokens: int, golden: Golden, calibration: Sequence[str]
) -> list[tuple[Ids, Ids]]:
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    step = max(1, len(calibration) // CALIBRATION_TEXTS)  # from all of a file that may be sorted by label
    windows = [tokenizer.encode(text).ids for text in calibration[::step][:CALIBRATION_TEXTS]] or golden.windows
    fill = pad_id(tokenizer)
    by_length = length_sorted_batches([len(window) for window in windows], CALIBRATION_TOKENS)
    return [padded([windows[row] for row in rows], fill) for rows in by_length]


def _write(
    directory: Path, manifest: Manifest, precision: Precision, batches: Sequence[tuple[Ids, Ids]], folder: Path
) -> None:
    """A release in this precision, without the packed graph: its weights would be those of another file."""
    names = [name for name in (MODEL, TOKENIZER, CONFIG, GOLDEN, PROFILE) if name in manifest.files]
    for name in names:
        shutil.copyfile(directory / name, folder / name)
    if precision != "fp32":
        graph = onnx.load(directory / MODEL)
        if precision == "fp16":
            graph = quantization.store_float16(graph)
        elif precision == "int8-dynamic":
            graph = quantization.quantise_dynamic(graph)
        else:
            graph = quantization.quantise_static(graph, batches)
        onnx.save(graph, folder / MODEL)
    files = {name: releases.file_sha256(folder / name) for name in names}
    made = {"precision": precision, "files": files, "code": this_code(), "parent": releases.as_parent(directory)}
    releases.write_manifest(folder, manifest.model_copy(update=made))


def _measured(
    folder: Path, golden: Golden, tasks: Sequence[Graded], measure: Mapping[str, float], device: Device
) -> Variant:
    runtime, model = _reference(folder)
    precision = releases.read_manifest(folder).precision
    logits = golden_logits(runtime, golden_batches(golden, "cpu"))
    distances = {name: distance(logits, golden.logits, head.columns) for name, head in model.heads.items()}
    if refusal(precision, distances, {}) is None:
        model = Model.load(folder, device)
    found = _graded(model, tasks)
    grades = {
        one.task.name: Grade(
            **grade.model_dump(include={"n", "accuracy", "macro_f1", "ece"}),
            lost=measure[one.task.name] - grade.macro_f1,
        )
        for one, grade in found
    }
    speed = found[0][1].latency
    return Variant(
        precision=precision,
        size_mib=(folder / MODEL).stat().st_size / MEBIBYTE,
        runtime=model.runtime,
        **speed.model_dump(),
        grades=grades,
        different_labels=max(one.different_labels for one in distances.values()),
        furthest_score=max(one.furthest for one in distances.values()),
        refused=refusal(precision, distances, {name: grade.lost for name, grade in grades.items()}),
    )


def _reference(directory: Path) -> tuple[Runtime, Model]:
    """A release with the runtime that computes as its graph says, whether its scores are right or not."""
    manifest = releases.read_manifest(directory)
    load = load_int8_cpu if manifest.precision.startswith("int8") else load_cpu
    runtime = load(directory, cores())
    return runtime, Model(manifest, Tokenizer.from_file(str(directory / TOKENIZER)), runtime)


def _graded(model: Model, tasks: Sequence[Graded]) -> list[tuple[Graded, Evaluation]]:
    return [(one, evaluate(Classifier(model, one.task), one.examples)) for one in tasks]
