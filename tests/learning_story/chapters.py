"""The chapters, in their order: each does what its title says, and notes what came of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import TypeAdapter

from models.learning.curation import Curation
from tests.learning_story.grading import macro_f1, of_pool
from tests.learning_story.people import HOSTILE, Desk, Labelled, once_each
from tests.learning_story.stage import Stage
from tests.learning_story.traffic import Stream
from tests.learning_story.world import TASK
from tests.streams.wire import Ends, read_all

OLD, NEW, HEARD = "old", "new", "heard"  # what flows: the frozen hold-out, what is graded, what people label
PATIENCE_S = 180.0
CANARY = 0.25
LABELS_TO_JUDGE = 400
LOAD = 0.7
CARELESS = {"learning_rate": 0.1, "epochs": 1}  # knobs of whoever is in a hurry

Tell = Callable[[str], None]


@dataclass
class Tale:
    """What the chapters share, and what they note."""

    stage: Stage
    stream: Stream
    desk: Desk
    tell: Tell
    calm_per_s: float
    champion: str = ""
    successor: str = ""
    capacity_per_s: float = 0.0
    stretches: list[tuple[str, float]] = field(default_factory=list)  # what began, and when
    found: dict[str, Any] = field(default_factory=dict)
    _number: int = 0

    def chapter(self, title: str) -> None:
        """It begins now."""
        self.mark(title)
        self._number += 1
        self.tell(f"[bold]{self._number}. {title}[/bold]")

    def mark(self, what: str) -> None:
        """A new stretch of the curve begins now."""
        self.stretches.append((what, time.time()))

    def until(self, true: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        """Wait for something. Raises TimeoutError."""
        end_s = time.monotonic() + within_s
        while not true():
            if time.monotonic() > end_s:
                raise TimeoutError(f"{what}: not within {within_s:g} s; see {self.stage.folder}")
            time.sleep(0.1)

    def answers(self, count: int) -> None:
        """Wait for so many more."""
        there = len(self.stream.reader.answers)
        self.until(lambda: len(self.stream.reader.answers) >= there + count, f"{count} more predictions")

    def served_by(self, release: str) -> bool:
        """Whether the newest answers are of this release alone, in every partition."""
        newest = self.stream.answered(max(0, len(self.stream.reader.answers) - 200))
        return bool(newest) and {answer.release for _, answer in newest} == {release}


def serve(tale: Tale) -> None:
    tale.chapter("The champion serves the world it knows")
    tale.stream.sender.flow(tale.calm_per_s, OLD)
    tale.answers(len(tale.stage.world.hold_out))
    tale.champion = tale.stream.answered()[0][1].release
    tale.stream.sender.flow(0)
    tale.stream.drained(PATIENCE_S)
    tale.capacity_per_s = max(_drained_per_s(tale) for _ in range(2))
    old = macro_f1(of_pool(tale.stream.answered(), OLD, tale.champion))
    tale.tell(f"{tale.champion}: macro-F1 {old} on the wording it knows; at most {tale.capacity_per_s:.0f} events/s")
    tale.found |= {"f1_old_before": old, "capacity_per_s": round(tale.capacity_per_s)}


def _drained_per_s(tale: Tale) -> float:
    count = max(1000, min(20_000, int(6 * (tale.capacity_per_s or 300))))
    began = time.monotonic()
    tale.stream.sender.burst(count)
    tale.stream.drained(PATIENCE_S)
    return count / (time.monotonic() - began)


def shift(tale: Tale) -> None:
    tale.chapter("The world shifts, and the watch raises an alarm")
    began = time.monotonic()
    tale.stream.sender.flow(tale.calm_per_s, NEW, HEARD, OLD)
    tale.until(lambda: bool(_alarms(tale)), "an alarm of the drift watch")
    alarm = _alarms(tale)[0]
    moved = ", ".join(one["quantity"] for one in alarm["moved"])
    tale.tell(f"alarm after {time.monotonic() - began:.0f} s: {moved} moved; it wants {alarm['wants']}")
    tale.answers(3 * max(len(tale.stage.world.heard), len(tale.stage.world.graded)))
    new = macro_f1(of_pool(tale.stream.answered(), NEW, tale.champion))
    tale.tell(f"macro-F1 on the new wording: {new}")
    known = on_known_labels(tale, tale.champion)
    tale.found |= {"drift_alarm": True, "drift_moved": moved, "f1_new_before": new, "f1_known_labels_before": known}


def on_known_labels(tale: Tale, release: str) -> float | None:
    """What a release makes of the new wording where the label is not new, too."""
    known = {row.label for row in tale.stage.world.taught}
    its = of_pool(tale.stream.answered(), NEW, release)
    return macro_f1([one for one in its if one[0].text.label in known])


def _alarms(tale: Tale) -> list[dict[str, Any]]:
    """What the watch has said so far, from alarm to resolution."""
    topic = tale.stage.settings.topics.drift
    found = [orjson.loads(one.value() or b"") for one in read_all(tale.stage.settings.broker.bootstrap, topic)]
    return sorted(found, key=lambda one: one["at"])


def label(tale: Tale) -> None:
    tale.chapter("People label what came; some err, one lies")
    heard = [Labelled(answer.id, event.text) for event, answer in tale.stream.answered() if event.pool == HEARD]
    asked = once_each(heard)
    wrong = tale.desk.label(asked, time.time(), hostile=True)
    done = tale.stage.sg("feedback", "collect", "--once", "--json")
    tale.tell(f"{len(asked)} texts, {wrong} wrong labels by mistake; taken in: {done['records']} labels")
    tale.found |= {"labelled_texts": len(asked), "wrong_labels": wrong}


def retrain(tale: Tale) -> None:
    tale.chapter("A successor is trained, and the gate compares it with the champion")
    stage = tale.stage
    data = ("--data", stage.taught, "--hold-out", stage.hold_out)
    outcome = stage.sg("retrain", TASK, "--once", *data, "--json", codes=(0, 1))
    tale.successor = outcome["release"] or ""
    run = _last_run(tale)
    curation = TypeAdapter(Curation).validate_json((run / "curation.json").read_bytes())
    verdict = orjson.loads((run / "verdict.json").read_bytes()) if (run / "verdict.json").is_file() else {"checks": []}
    blamed = [name for name, grade in curation.annotators.items() if grade.quarantined]
    aside = sum(one.quarantined for one in curation.set_aside)
    tale.tell(
        f"{len(curation.kept)} texts kept, {aside} wait for a person; quarantined: {', '.join(blamed) or 'nobody'}"
    )
    for check in verdict["checks"]:
        tale.tell(f"  {'passed' if check['passed'] else 'REFUSED'} {check['name']}: {check['reason']}")
    tale.found |= {
        "verdict": outcome["end"],
        "reasons": outcome["reasons"],
        "hostile_blamed": blamed == [HOSTILE],
        "kept_texts": len(curation.kept),
    }
    if outcome["end"] != "challenger":
        raise RuntimeError(f"the run ended as {outcome['end']}: {'; '.join(outcome['reasons'])}")


def _last_run(tale: Tale) -> Any:
    runs = tale.stage.folder / "home" / "learning" / TASK / "runs"
    return max(runs.glob("*/plan.json"), key=lambda path: path.stat().st_mtime).parent


def shadow(tale: Tale) -> None:
    tale.chapter("In the shadow: it scores what the champion scores, and people label texts drawn at random")
    tale.stream.sender.flow(tale.calm_per_s, NEW, OLD)
    pairs = Ends(tale.stage.settings.broker.bootstrap, [tale.stage.settings.topics.shadow])
    tale.until(lambda: pairs.total() > 0, "the first pair of scores")
    began = len(tale.stream.reader.answers)  # what was answered before then has no pair, and would be asked for in vain
    tale.until(lambda: pairs.total() >= 2 * LABELS_TO_JUDGE, "pairs of scores")
    pairs.close()
    drawn = tale.stream.answered(began)
    random.Random(3).shuffle(drawn)
    asked = once_each(Labelled(answer.id, event.text) for event, answer in drawn)[:LABELS_TO_JUDGE]
    tale.desk.label(asked, time.time(), at_random=True)
    tale.stage.sg("feedback", "collect", "--once", "--json")
    judged = tale.stage.sg("releases", "judge", TASK, "--json")
    tale.tell(f"{len(asked)} texts labelled: {judged['standing']['reason']}")
    tale.found["judged"] = judged["standing"]["action"]


def canary(tale: Tale) -> None:
    tale.chapter("As a canary: it serves a quarter of the accounts")
    (challenger,) = [one for one in tale.stage.sg("releases", "status", "--json") if one["role"] == "challenger"]
    tale.stage.sg("releases", "promote", TASK, challenger["reference"], "--canary", CANARY)
    began = len(tale.stream.reader.answers)
    tale.until(lambda: _share(tale, began, tale.successor) > 0, "predictions of the canary")
    began = len(tale.stream.reader.answers)
    tale.answers(int(10 * tale.calm_per_s))
    share = _share(tale, began, tale.successor)
    tale.tell(f"it served {share:.0%} of the events")
    tale.found["canary_share"] = round(share, 3)


def _share(tale: Tale, first: int, release: str) -> float:
    found = tale.stream.answered(first)
    return sum(answer.release == release for _, answer in found) / max(1, len(found))


def worse(tale: Tale) -> None:
    tale.chapter("A second candidate, badly trained, is refused")
    careless = tale.stage.configured("careless.toml", **CARELESS)
    outcome = tale.stage.sg("retrain", TASK, "--once", "--json", codes=(0, 1), config=careless)
    for reason in outcome["reasons"]:
        tale.tell(f"  {reason}")
    standing = tale.stage.sg("releases", "status", "--json")
    still = [one["release"] for one in standing if one["role"] == "champion"] == [tale.successor]
    tale.found["drift_resolved"] = _alarms(tale)[-1]["state"] == "resolved"
    tale.found["worse_candidate_refused"] = outcome["end"] == "refused" and still
