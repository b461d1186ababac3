"""Loading what serves: one model for all tasks of a release, measured, or an error that says what to do.

The releases are real ones made by hand: a text's logits are sums over its tokens, so no training is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from models.errors import BadTask, ModelError, ReleaseNotFound
from models.tasks import LabelPolicy
from streams import metrics
from streams.adaptive import CostModel
from streams.live import load_models, serve
from streams.scoring import Scorer
from streams.settings import Settings, load_settings
from tests.streams.fakes import FakeModel, task_of
from tests.streams.handmade import make_release
from tests.streams.serving import at_work, bounds, outcomes_of

HEADS = {"sentiment": ("negative", "neutral", "positive"), "risk": ("benign", "fraud")}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without releases."""
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def settings_for(releases: dict[str, Path], tasks: dict[str, Path] | None = None) -> Settings:
    """The shipped settings with the sources that these tasks need, one thread of the CPU."""
    shipped = load_settings(env={})
    models = shipped.models.model_copy(
        update={"device": "cpu", "runtime": "onnxruntime-fp32", "threads": 1,
                "releases": {task: str(path) for task, path in releases.items()}, "tasks": tasks or {}}
    )  # fmt: skip
    sources = {name: one for name, one in shipped.sources.items() if set(one.tasks) & releases.keys()}
    return shipped.model_copy(update={"models": models, "sources": sources})


async def labels_of(settings: Settings, texts: Sequence[str]) -> dict[str, list[str]]:
    """What each loaded model says of texts, by task."""
    found: dict[str, list[str]] = {}
    for one in load_models(settings):
        scorer = Scorer(one, bounds())
        async with at_work(scorer):
            outcomes = await outcomes_of(scorer, texts)
        for place, served in enumerate(one.served):
            assert all(isinstance(outcome, tuple) for outcome in outcomes)
            found[served.name] = [served.labels[outcome[1][place][0]] for outcome in outcomes]  # type: ignore[index]
    return found


TEXTS = ["it falls rent", "it rises mule", "opens mule mule"]
SAID = {"sentiment": ["negative", "positive", "neutral"], "risk": ["benign", "fraud", "fraud"]}


async def test_two_tasks_of_one_release_share_one_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = make_release(tmp_path / "both", HEADS)
    (tmp_path / "alias").symlink_to(both)
    settings = settings_for({"sentiment": both, "risk": tmp_path / "alias"})
    caplog.set_level(logging.INFO, "streams")
    (one,) = load_models(settings)
    assert sorted(served.name for served in one.served) == ["risk", "sentiment"]
    assert {served.name: served.labels for served in one.served} == HEADS
    assert await labels_of(settings, TEXTS) == SAID
    assert "release sentiment-risk-by-hand on onnxruntime-fp32" in caplog.text
    for task in HEADS:
        labels = {"task": task, "release": one.model.release, "device": "cpu", "runtime": "onnxruntime-fp32"}
        assert metrics.REGISTRY.get_sample_value("streamgauge_model_info", labels) == 1


async def test_tasks_of_different_releases_have_a_model_each(tmp_path: Path) -> None:
    releases = {"sentiment": make_release(tmp_path / "both", HEADS),
                "risk": make_release(tmp_path / "risk", {"risk": ("falls", "opens")})}  # fmt: skip
    settings = settings_for(releases)
    assert len(load_models(settings)) == 2
    assert await labels_of(settings, TEXTS) == SAID | {"risk": ["falls", "falls", "opens"]}


async def test_the_newest_release_is_found_for_each_of_its_tasks(home: Path) -> None:
    make_release(home / "releases" / "sentiment" / "both", HEADS)
    shipped = settings_for(dict.fromkeys(HEADS, home))
    settings = shipped.model_copy(update={"models": shipped.models.model_copy(update={"releases": {}})})
    (one,) = load_models(settings)
    assert {served.name for served in one.served} == set(HEADS)


async def test_a_task_file_of_ones_own_decides(tmp_path: Path) -> None:
    release = make_release(tmp_path / "risk", {"risk": ("benign", "fraud")})
    (tmp_path / "mine.toml").write_text('name = "risk"\n[labels.fraud]\nalert_above = 0.25\nseverity = "low"\n')
    (one,) = load_models(settings_for({"risk": release}, {"risk": tmp_path / "mine.toml"}))
    (served,) = one.served
    assert [(rule.column, rule.label, rule.threshold, rule.policy.severity) for rule in served.alert_rules] == [
        (1, "fraud", 0.25, "low")
    ]


def test_a_task_file_for_another_task_is_named(tmp_path: Path) -> None:
    release = make_release(tmp_path / "risk", {"risk": ("benign", "fraud")})
    (tmp_path / "mine.toml").write_text('name = "fraud-desk"\n')
    with pytest.raises(BadTask, match=r"models\.tasks\.risk: .*mine\.toml.* 'fraud-desk'.* name = \"risk\""):
        load_models(settings_for({"risk": release}, {"risk": tmp_path / "mine.toml"}))


def test_a_release_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        load_models(settings_for({"risk": tmp_path / "nowhere"}))
    with pytest.raises(ReleaseNotFound, match="not of 'risk'"):
        load_models(settings_for({"risk": make_release(tmp_path / "s", {"sentiment": HEADS["sentiment"]})}))


# ---- what a served task decides, and what serving is measured by


def test_served_knows_which_labels_alert_and_whether_events_are_routed() -> None:
    policies = {"odd": LabelPolicy(alert_above=0.7), "bad": LabelPolicy(alert_above=0.5, severity="high"),
                "gone": LabelPolicy(alert_above=0.1)}  # fmt: skip
    (served,) = serve(FakeModel(), [task_of(labels=policies)]).served
    assert [(rule.column, rule.label, rule.threshold) for rule in served.alert_rules] == [(1, "odd", 0.7),
                                                                                        (2, "bad", 0.5)]  # fmt: skip
    assert [policy.severity for policy in served.policies] == ["medium", "medium", "high"]
    assert not served.routes
    (routed,) = serve(FakeModel(), [task_of(labels={"calm": LabelPolicy(queue="desk")})]).served
    assert routed.routes


@pytest.mark.parametrize("max_tokens", [4, 8, 24, 96, 512])
def test_batches_of_several_sizes_are_measured_within_what_the_model_reads(max_tokens: int) -> None:
    model = FakeModel(max_tokens=max_tokens)
    one = serve(model, [task_of()])
    sizes = {tokens for tokens, _ in one.costs}
    assert sizes <= {len(batch) * len(batch[0]) for batch in model.batches}
    assert len(sizes) >= 2
    widths = {len(batch[0]): len(batch) for batch in model.batches if len(batch) * len(batch[0]) > 512}
    assert sorted(widths) == [width for width in (8, 16, 32, 64, 128, 256) if width < max_tokens] + [max_tokens]
    assert all(seconds > 0 for _, seconds in one.costs)
    CostModel(one.costs)
    assert (one.name, one.served[0].release) == ("risk", "fake-1")
