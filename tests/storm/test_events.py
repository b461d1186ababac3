"""The storm's expectations are the product's promises: here they meet without a broker."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import pytest

from models.tasks import load_task
from streams.decisions import decide
from streams.events import Event, Rejected
from streams.intake import Intake
from streams.live import Loaded, serve
from streams.settings import Settings, load_settings
from streams.trial import rounded
from tests.storm.events import MAX_EVENT_BYTES, POISON, SOURCES, TASKS, expected_outputs, source_of, value_of
from tests.storm.model import BREAKS_MODEL, BREAKS_TOKENISER, NOT_FINITE, StormModel, labels_of, scores_of
from tests.streams.records import FakeRecord

NUMBERS = range(600)


@pytest.fixture(scope="module")
def settings() -> Settings:
    shipped = load_settings(env={})
    return shipped.model_copy(update={"intake": shipped.intake.model_copy(update={"max_event_bytes": MAX_EVENT_BYTES})})


def verdict(settings: Settings, number: int, poison: str | None) -> Event | Rejected:
    source = source_of(number)
    record = FakeRecord(value_of(number, poison), number, source, 0)
    (found,) = Intake(source, settings.sources[source], settings.intake).decode([record], time.time())
    return found


def test_what_is_expected_of_an_event_is_what_follows_from_its_scores(settings: Settings) -> None:
    models = {task: serve(StormModel([task]), [load_task(task)]) for task in ("intent", "risk", "sentiment")}
    for number in NUMBERS:
        event = verdict(settings, number, None)
        assert isinstance(event, Event)
        results = [(models[task].served[0], scored(models[task], event.text)) for task in TASKS[event.source]]
        found = {
            (one.name, one.value["id"].removeprefix(f"{event.at}/"), one.value.get("label", ""))
            for one in decide(event, results, settings.surge, "now")
            if one.value is not None and not isinstance(one.value, bytes)
        }
        assert found == set(expected_outputs(number)), number


def scored(loaded: Loaded, text: str) -> tuple[int, list[float]]:
    ((name, head),) = loaded.model.heads.items()
    ids: Sequence[int] = loaded.model.encode([text])[0].windows[0]
    return rounded(loaded.model.run([ids])[name][0], len(head.labels))


def test_every_output_is_expected_of_some_event() -> None:
    outputs = {one.output for number in NUMBERS for one in expected_outputs(number)}
    assert outputs == {"predictions", "review", "routes", "alerts", "observations"}
    assert {source_of(number) for number in NUMBERS} == set(SOURCES)


@pytest.mark.parametrize("kind", [kind for kind, (_, wanted) in POISON.items() if wanted.stage == "intake"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_poison_is_refused_as_expected(settings: Settings, kind: str, number: int) -> None:
    found = verdict(settings, number, kind)
    assert isinstance(found, Rejected)
    assert (found.stage, found.error) == POISON[kind][1]


@pytest.mark.parametrize("kind", [kind for kind, (_, wanted) in POISON.items() if wanted.stage == "scoring"])
def test_poison_for_the_model_passes_the_intake(settings: Settings, kind: str) -> None:
    found = verdict(settings, 2, kind)
    assert isinstance(found, Event)
    assert found.text.split()[0] in (BREAKS_MODEL, BREAKS_TOKENISER, NOT_FINITE)


def test_the_model_scores_by_text_and_fails_when_told_to() -> None:
    model = StormModel(["risk", "sentiment"])
    texts = ["one text", "another text of more words"]
    windows = [one.windows[0] for one in model.encode(texts)]
    rows = model.run(windows)
    assert rows["risk"].shape == (2, len(labels_of("risk")))
    assert rows["sentiment"][1].tolist() == pytest.approx(scores_of(texts[1], "sentiment"))
    with pytest.raises(ValueError, match="tokenised"):
        model.encode([texts[0], f"{BREAKS_TOKENISER} 1"])
    (breaking,) = model.encode([f"{BREAKS_MODEL} 1"])
    with pytest.raises(ValueError, match="breaks"):
        model.run([*windows, breaking.windows[0]])
    (odd,) = model.encode([f"{NOT_FINITE} 1"])
    assert [math.isfinite(row[0]) for row in model.run([windows[0], odd.windows[0]])["risk"]] == [True, False]
    model.fail_for(60)
    with pytest.raises(RuntimeError, match="fails on everything"):
        model.run(windows)
