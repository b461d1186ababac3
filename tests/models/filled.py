"""Directories that are releases in all but their content: for what never loads a model."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from models import releases
from models.releases import Base, Data, HeadEntry, Manifest

DAY = datetime(2026, 11, 22, tzinfo=UTC)


def fill(directory: Path, *tasks: str, days: int = 0, model: bytes = b"graph") -> Manifest:
    """Write the files of a release for these tasks (none: risk) into a directory; of its graph only a note is there."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.onnx").write_bytes(empty_graph(model))
    (directory / "tokenizer.json").write_bytes(b"{}")
    files = {name: releases.file_sha256(directory / name) for name in ("model.onnx", "tokenizer.json")}
    created_at = DAY + timedelta(days=days)
    data = Data(name="d.jsonl", sha256="0" * 64, rows=2)
    manifest = Manifest(
        release=releases.release_id(tasks or ("risk",), created_at, files, ["0" * 64]),
        heads=tuple(
            HeadEntry(task=task, labels=("a", "b"), temperature=1.0, data=data, metrics={})
            for task in tasks or ("risk",)
        ),
        max_tokens=16,
        base=Base(name="tiny", sha256="1" * 64),
        metrics={},
        versions={},
        created_at=created_at,
        files=files,
        method="full",
        seed=7,
        recipe="test",
    )
    releases.write_manifest(directory, manifest)
    return manifest


def empty_graph(note: bytes) -> bytes:
    """An ONNX file without a graph, whose producer's name is up to 127 bytes long."""
    return bytes([0x12, len(note)]) + note
