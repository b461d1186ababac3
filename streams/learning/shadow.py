"""A challenger beside the champion: the other of the two scores a share of what one has served, while the models idle.

    predictions acknowledged -> of those in the share, as many as there is room for -> the other release -> topic shadow

In shadow mode the other is the challenger; in canary mode, where the challenger serves its share, it is the champion.
So there are always pairs on the same texts, to be judged by the labels that come later, and they are drawn by the key
alone, whatever either of them says. No event waits for this, and nothing of it counts for what may be committed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from streams import metrics
from streams.events import Event, Output, Scored, ShadowScore, iso
from streams.publishing import Publisher
from streams.scoring import EVIDENCE_LANE, Scorer, ScoringFailed
from streams.serving import Challenge, Serving, in_share
from streams.trial import told

log = logging.getLogger(__name__)

MOST_WAITING = 1024  # texts; beyond them the share is not scored in full
MOST_OF_A_SLICE = 64  # so that an event that arrives meanwhile waits for a small batch


class Shadow:
    """Scores pairs in the background, for all sources of a worker.

    Args:
        publisher: where they go.
        clock: wall clock, seconds since 1970.
    """

    def __init__(self, publisher: Publisher, clock: Callable[[], float] = time.time) -> None:
        self._publisher = publisher
        self._clock = clock
        self._waiting = 0
        self._running: set[asyncio.Task[None]] = set()

    def offer(self, outputs: Sequence[Output], events: Sequence[Event], serving: Serving) -> None:
        """Take from a slice that is done what falls into the challengers' shares; what there is no room for is left."""
        for challenge in serving.challenges:
            found = [(output.key, output.value) for output in outputs if _is_its(output, challenge)]
            room = min(MOST_OF_A_SLICE, MOST_WAITING - self._waiting)
            busy = not all(scorer.idle for scorer in serving.scorers)
            taken = [] if busy else found[: max(0, room)]
            metrics.SHADOW_SKIPPED.labels(challenge.task).inc(len(found) - len(taken))
            if taken:
                self._start(challenge, taken, events, serving)

    def _start(
        self, challenge: Challenge, taken: list[tuple[str, Any]], events: Sequence[Event], serving: Serving
    ) -> None:
        texts = {event.at.offset: event.text for event in events}
        other = challenge.scorer if challenge.mode == "shadow" else _champion(serving, challenge.task)
        self._waiting += len(taken)
        other.users += 1
        task = asyncio.create_task(self._score(challenge, other, taken, texts))
        self._running.add(task)

        def done(_: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._waiting -= len(taken)
            other.users -= 1

        task.add_done_callback(done)

    async def _score(
        self, challenge: Challenge, other: Scorer, taken: list[tuple[str, Any]], texts: dict[int, str]
    ) -> None:
        try:
            asked = [texts[prediction["source"]["offset"]] for _, prediction in taken]
            outcomes = await (await other.submit(asked, EVIDENCE_LANE))
            outputs = []
            for (key, prediction), outcome in zip(taken, outcomes, strict=True):
                if isinstance(outcome, ScoringFailed):
                    metrics.SHADOW_SKIPPED.labels(challenge.task).inc()
                    continue
                pair = self._pair(challenge, prediction, _scored(outcome, challenge.task))
                outputs.append(Output("shadow", key, pair))
                same = pair["champion"]["label"] == pair["challenger"]["label"]
                metrics.SHADOWED.labels(challenge.task, "same" if same else "different").inc()
            await (await self._publisher.send(outputs))
        except Exception as error:  # a comparison is not worth a worker
            log.warning("%s: a comparison with %s is lost: %s", challenge.task, challenge.release, told(error))

    def _pair(self, challenge: Challenge, prediction: Any, other: Scored) -> ShadowScore:
        served: Scored = {"release": prediction["release"], "label": prediction["label"], "score": prediction["score"]}
        champion, challenger = (other, served) if served["release"] == challenge.release else (served, other)
        return {
            "id": f"{prediction['id']}/shadow/{challenge.release}",
            "event_id": prediction["event_id"],
            "event_time": prediction["event_time"],
            "scored_at": iso(self._clock()),
            "task": challenge.task,
            "mode": challenge.mode,
            "champion": champion,
            "challenger": challenger,
            "source": prediction["source"],
        }


def _is_its(output: Output, challenge: Challenge) -> bool:
    """Whether it is a prediction of the share, by the one that serves the share: a canary may have failed on a text."""
    value = output.value
    return (
        output.name == "predictions"
        and isinstance(value, dict)
        and value["task"] == challenge.task
        and (value["release"] == challenge.release) == (challenge.mode == "canary")
        and in_share(output.key, challenge.release, challenge.share)
    )


def _champion(serving: Serving, task: str) -> Scorer:
    return next(scorer for scorer in serving.scorers if scorer.serves([task]))


def _scored(outcome: Any, task: str) -> Scored:
    loaded, rows = outcome
    place = [served.name for served in loaded.served].index(task)
    served, (best, probabilities) = loaded.served[place], rows[place]
    return {"release": served.release, "label": served.labels[best], "score": probabilities[best]}
