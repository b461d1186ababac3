"""Which words a risk alert rests on, added to its evidence: where it is asked for, and while the model is idle.

An alert is explained only when no text waits for its model; the windows to run go in a lane below all others, and what
is not there in time is left out. So the alert comes a little later, never not at all, and other events wait for one
batch at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from models.explanations import Occlusion, occlude, weigh
from models.windows import merge
from streams.events import Event, Output, Rejected
from streams.live import Served, TextModel
from streams.scoring import EVIDENCE_LANE, Scorer, ScoringFailed
from streams.trial import told

log = logging.getLogger(__name__)

MOST_WORDS = 64  # that are left out in turn; of a longer text runs of words
TOLD = 5  # words, those that count most for the alert


class AlertEvidence:
    """Explains the alerts of one source.

    Args:
        patience_s: how long the alerts of one slice may wait for their words.
        clock: monotonic seconds.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = patience_s
        self._clock = clock

    async def added(
        self, outputs: Sequence[Output], verdicts: Sequence[Event | Rejected], scorers: Sequence[Scorer]
    ) -> Sequence[Output]:
        """The outputs of a slice in their order, its alerts with the words they rest on as far as there is time.

        Explained is by the scorer that raised the alert, one of `scorers`.
        """
        if not any(output.name == "alerts" for output in outputs):
            return outputs
        texts = {verdict.at.offset: verdict.text for verdict in verdicts if isinstance(verdict, Event)}
        by_release = {(served.name, served.release): one for one in scorers for served in one.loaded.served}
        until_s = self._clock() + self._patience_s
        return [
            await self._with_words(output, texts, by_release, until_s) if output.name == "alerts" else output
            for output in outputs
        ]

    async def _with_words(
        self, output: Output, texts: Mapping[int, str], scorers: Mapping[tuple[str, str], Scorer], until_s: float
    ) -> Output:
        alert: Any = output.value
        scorer, left_s = scorers.get((alert["task"], alert["release"])), until_s - self._clock()
        if scorer is None or left_s <= 0 or not scorer.idle:
            return output
        try:
            async with asyncio.timeout(left_s):
                words = await _words(scorer, alert["task"], alert["label"], texts[alert["source"]["offset"]])
        except TimeoutError:
            return output
        except Exception as error:  # no text may keep an alert from going out
            log.warning("%s: goes without its words: %s", alert["id"], told(error))
            return output
        if not words:
            return output
        return output._replace(value={**alert, "evidence": {**alert["evidence"], "words": words}})


async def _words(scorer: Scorer, task: str, label: str, text: str) -> list[dict[str, Any]]:
    occlusion, lengths = await asyncio.to_thread(_read, scorer.loaded.model, text)
    outcomes = await (await scorer.submit_windows(occlusion.windows, EVIDENCE_LANE))
    place = [served.name for served in scorer.loaded.served].index(task)
    served, rows = scorer.loaded.served[place], []
    for outcome in outcomes:
        if isinstance(outcome, ScoringFailed):
            return []
        rows.append(outcome[1][place][1])
    weights = _weights(served, occlusion, np.array(rows, np.float32), lengths, label)
    strongest = sorted(zip(weights, occlusion.words, strict=True), reverse=True)[:TOLD]
    return [
        {"start": start, "end": end, "text": text[start:end], "weight": round(weight, 6)}
        for weight, (start, end) in strongest
        if weight > 0
    ]


def _read(model: TextModel, text: str) -> tuple[Occlusion, list[int]]:
    windows = model.encode([text])[0].windows
    return occlude(text, windows, model.spans(text), MOST_WORDS), [len(window) for window in windows]


def _weights(served: Served, occlusion: Occlusion, rows: np.ndarray, lengths: Sequence[int], label: str) -> list[float]:
    alerting = [rule.column for rule in served.alert_rules]

    def merged(of_windows: np.ndarray) -> np.ndarray:
        return merge(of_windows, lengths, served.task.long_text, alerting)

    return weigh(occlusion, rows, served.labels.index(label), merged)
