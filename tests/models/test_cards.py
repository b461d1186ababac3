import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import releases
from models.cards import CARD, card, with_card
from models.errors import IntegrityError
from models.lineage import Code, Parent
from models.out_of_scope import Scope
from models.releases import Base, Data, HeadEntry, Manifest
from models.temperature import Bend
from tests.models.filled import empty_graph

DEV: dict[str, Any] = {
    "n": 120,
    "accuracy": 0.925,
    "macro_f1": 0.9012345,
    "ece": 0.0171,
    "per_label": {
        "ham": {"precision": 0.95, "recall": 0.96, "f1": 0.955, "support": 90},
        "spam": {"precision": 0.85, "recall": 0.84, "f1": 0.845, "support": 30},
        "scam": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    },
}


def make_manifest(labels: tuple[str, ...] = ("ham", "spam", "scam"), **update: Any) -> Manifest:
    head = HeadEntry(
        task="risk",
        labels=labels,
        temperature=1.25,
        data=Data(name="train.jsonl", sha256="d" * 64, rows=1080),
        metrics={"dev": DEV, "ece_before": 0.08},
    )
    return Manifest(
        release="risk-20261122-1a2b3c4d",
        heads=(head,),
        max_tokens=128,
        base=Base(name="all-MiniLM-L6-v2", sha256="b" * 64),
        metrics={"parity": {"label_agreement": 1.0, "packed": {"texts": 66}}, "best_epoch": 4},
        versions={"torch": "2.9", "onnx": "1.19"},
        created_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
        files={"model.onnx": "1" * 64, "tokenizer.json": "2" * 64},
        method="full",
        seed=7,
        recipe="train-full",
        code=Code(version="0.1.0", sha256="c" * 64),
    ).model_copy(update=update)


def tables(text: str) -> list[list[str]]:
    """The cells of every table row."""
    rows = (line for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_a_card_says_what_was_measured_and_where_it_comes_from() -> None:
    text = card(make_manifest(parent=Parent(release="risk-20261101-99999999", sha256="e" * 64)))
    rows = tables(text)
    assert text.startswith("# risk-20261122-1a2b3c4d\n")
    for row in (
        ["risk", "120", "0.925", "0.9012", "0.0171"],
        ["spam", "0.85", "0.84", "0.845", "30"],
        ["parity.label\\_agreement", "1"],
        ["parity.packed.texts", "66"],
        ["risk.ece\\_before", "0.08"],
        ["base encoder", "all-MiniLM-L6-v2", "b" * 64],
        ["data of risk", "train.jsonl, 1080 rows", "d" * 64],
        ["code", "Streamgauge 0.1.0", "c" * 64],
        ["parent release", "risk-20261101-99999999", "e" * 64],
        ["model.onnx", "1" * 64],
    ):
        assert row in rows, row
    assert "made on 2026-11-22 with Streamgauge 0.1.0" in text
    assert "Recipe train-full, method full, seed 7, weights in fp32." in text
    assert "temperature of 1.25, for text" in text
    assert "weakest on spam (F1 0.845)" in text  # of scam there was no example to be weak on
    assert "streamgauge classify risk --release risk-20261122-1a2b3c4d" in text


def test_a_card_follows_from_its_manifest_alone() -> None:
    manifest = make_manifest()
    assert card(manifest) == card(Manifest.model_validate_json(manifest.model_dump_json()))
    assert card(manifest) != card(make_manifest(seed=8))


def test_what_was_not_measured_is_not_made_up() -> None:
    bare = make_manifest().heads[0].model_copy(update={"metrics": {}})
    text = card(make_manifest(heads=(bare,), metrics={}, code=None))
    assert ["risk", *["not measured"] * 4] in tables(text)
    for absent in ("Further figures", "by label", "weakest", "parent release", "with Streamgauge"):
        assert absent not in text


def test_a_release_that_knows_its_scope_says_how_well() -> None:
    scope = Scope(
        familiar_from=2.5, asked_false_acceptance=0.2, n_outside=100, false_acceptance=0.18, false_rejection=0.024
    )
    plain = make_manifest()
    scoped = make_manifest(heads=(plain.heads[0].model_copy(update={"scope": scope}),))
    assert "of 100 development texts it took 0.180 for in scope, and turned 0.024 of the others away" in card(scoped)
    assert "Every text gets one of the labels" not in card(scoped)
    assert "Every text gets one of the labels" in card(plain)


@settings(deadline=None, max_examples=25)
@given(label=st.text(min_size=1, max_size=60), name=st.text(min_size=1, max_size=300))
def test_names_from_data_cannot_shape_the_card(label: str, name: str) -> None:
    plain = make_manifest(("a", "b"))
    head = plain.heads[0]
    dev = DEV | {"per_label": {label: DEV["per_label"]["ham"]}}
    hostile = head.model_copy(
        update={"labels": (label, "b"), "data": Data(name=name, sha256="d" * 64, rows=3), "metrics": {"dev": dev}}
    )
    text = card(plain.model_copy(update={"heads": (hostile,)}))
    assert [len(row) for row in tables(text)] == [
        len(row)
        for row in tables(
            card(plain.model_copy(update={"heads": (hostile.model_copy(update={"labels": ("a", "b")}),)}))
        )
    ]
    assert {len(row) for row in tables(text)} == {2, 3, 5}
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 8
    assert "<" not in re.sub(r"\\<", "", text)


def test_the_card_is_hashed_with_its_release(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(empty_graph(b"graph"))
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    files = {name: releases.file_sha256(tmp_path / name) for name in ("model.onnx", "tokenizer.json")}
    manifest = with_card(tmp_path, make_manifest(files=files))
    assert with_card(tmp_path, manifest) == manifest
    releases.write_manifest(tmp_path, manifest)
    assert releases.verify(tmp_path) == manifest
    (tmp_path / CARD).write_text("# the best model there is\n")
    with pytest.raises(IntegrityError, match=r"card\.md: is not the file"):
        releases.verify(tmp_path)


def test_a_card_says_where_the_temperature_bends() -> None:
    manifest = make_manifest()
    head = manifest.heads[0].model_copy(update={"bends": (Bend(lead=3.5, temperature=0.5),)})
    assert "a temperature of 1.25, from a lead of 3.5 on 0.5, for text" in card(
        manifest.model_copy(update={"heads": (head,)})
    )
