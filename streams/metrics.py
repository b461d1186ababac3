"""Every Prometheus metric, declared once. Labels come from the configuration, never from input."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from models.learning.alarms import Standing
from models.learning.drift import Shift
from models.learning.estimated_accuracy import Expected, Interval, Realised
from streams.adaptive import Pace
from streams.batching import Batch
from streams.bulk_histogram import BulkHistogram
from streams.events import Output, OutputName

if TYPE_CHECKING:
    from streams.live import Loaded

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def _counter(name: str, what: str, *labels: str) -> Counter:
    return Counter(f"streamgauge_{name}", what, labels, registry=REGISTRY)


def _gauge(name: str, what: str, *labels: str) -> Gauge:
    return Gauge(f"streamgauge_{name}", what, labels, registry=REGISTRY)


def _histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"streamgauge_{name}", what, labels, buckets=buckets, registry=REGISTRY)


EVENTS_IN = _counter("events_in_total", "Records read from a source", "source")
EVENTS_OUT = _counter("events_out_total", "Records acknowledged by the broker, by output", "source", "output")
DEAD_LETTERS = _counter("dead_letters_total", "Inputs that became dead letters", "source", "stage", "error")
SHED = _counter("shed_total", "Inputs set aside unscored, by the policy of their source", "source")
PREDICTIONS = _counter("predictions_total", "Predictions published", "source", "task")
ALERTS = _counter("alerts_total", "Alerts published", "kind", "state", "severity")
ROUTES = _counter("routes_total", "Chat turns routed", "action")
REVIEWS = _counter("reviews_total", "Predictions sent to a person", "task")

BATCH_EVENTS = _histogram("batch_events", "Events in a batch", _EVENTS, "task")
BATCH_TOKENS = _histogram("batch_padded_tokens", "Tokens in a batch, padding counted", _TOKENS, "task")
REAL_TOKENS = _counter("tokens_total", "Tokens scored, padding not counted", "task")
PADDED_TOKENS = _counter("padded_tokens_total", "Tokens scored, padding counted", "task")
PADDING_RATIO = _gauge("padding_ratio", "Padded over real tokens of the last batch", "task")
LONG_TEXTS = _counter("long_texts_total", "Texts longer than the model reads at once, scored in windows", "task")
WINDOWS = _counter("windows_total", "Windows of such texts", "task")
TEXTS_CUT = _counter("texts_cut_total", "Texts longer than all windows hold, cut", "task")
QUEUE_WAIT_S = _histogram("queue_wait_seconds", "How long the first event of a batch waited", _LATENCY_S, "task")
INFERENCE_S = _histogram("inference_seconds", "Model time of a batch", _LATENCY_S, "task")
MODEL_FAILURES = _counter("model_failures_total", "Batches the model refused, before halving", "task")
MODEL_INFO = _gauge("model_info", "1 for the release that serves a task", "task", "release", "device", "runtime")
RELEASE_OFFSET = _gauge(
    "release_effective_offset", "First offset of a partition that this worker scored with the release it serves with",
    "task", "topic", "partition", "release",
)  # fmt: skip
RELEASE_REFUSED = _gauge(
    "release_refused", "1 while what the releases topic asks for is broken and another release serves", "task", "role"
)
SHADOWED = _counter("shadowed_total", "Events scored by champion and challenger: same label, or not", "task", "labels")
SHADOW_SKIPPED = _counter("shadow_skipped_total", "Events of the challenger's share that were not compared", "task")
CHALLENGER = _gauge("challenger_share", "Share of the keys that a challenger scores", "task", "mode")
RELEASE_SWAPS = _counter("release_swaps_total", "Times another release took over", "task")
MODEL_STATE = _gauge("model_state", "1 for what scores a task's texts: chosen, reference, or holding", "task", "state")
MODEL_ILLNESSES = _counter("model_illnesses_total", "Times a runtime failed on a harmless text too", "task", "runtime")
MODEL_PROBES = _counter("model_probes_total", "Probes of a runtime that is not trusted", "task", "result")
OUT_OF_MEMORY = _counter("out_of_memory_total", "Batches that did not fit into memory, and were halved", "task")
MODEL_SLOW = _gauge("model_slow", "1 while even the smallest batches, slower than at first, miss the target", "task")
SLOWDOWN = _gauge("model_slowdown_ratio", "What batches cost now, over what they cost at the start", "task")
BUDGET_TOKENS = _gauge("batch_budget_tokens", "Padded tokens a batch may have, as learned", "task")
FIXED_COST_S = _gauge("batch_fixed_cost_seconds", "Model time of a batch besides its tokens, as learned", "task")
TOKEN_COST_S = _gauge("token_cost_seconds", "Model time of one padded token, as learned", "task")
PATIENCE_S = _gauge("batch_patience_seconds", "How long an idle device waits for more texts, as learned", "task")

OUTPUT_LATENCY_S = BulkHistogram(
    "streamgauge_event_to_output_seconds",
    "From the input's broker time stamp to the acknowledgement of its outputs",
    _LATENCY_S,
    "source",
)
REGISTRY.register(OUTPUT_LATENCY_S)
PUBLISH_S = _histogram("publish_seconds", "From handing over to acknowledgement by the broker", _LATENCY_S, "source")
LAG = _gauge("consumer_lag", "Records between the log end and the last finished one", "topic", "partition")
SLICES_IN_FLIGHT = _gauge("slices_in_flight", "Slices read but not finished", "source")
EVENTS_LOST = _counter("events_lost_to_retention_total", "Records retention deleted before they were read", "topic")
STALLED_S = _gauge("stalled_seconds", "How long there has been work and none of it got done")
LOOP_LATE_S = _gauge("event_loop_late_seconds", "How long the event loop has not run")
LOOP_TASKS = _gauge("event_loop_tasks", "Tasks on the event loop")
BROKER_AWAY_S = _gauge("broker_away_seconds", "How long no broker has answered")
OUTSIDE_GROUP_S = _gauge("outside_group_seconds", "How long this worker has been in no consumer group")
REBALANCES = _counter("rebalances_total", "Times this worker's partitions were assigned")
LATE_OBSERVATIONS = _counter("late_observations_total", "Observations after their bucket was closed")
REPEATED_OBSERVATIONS = _counter("repeated_observations_total", "Observations that came again and were not counted")
SURGE_EVICTIONS = _counter(
    "surge_evictions_total", "What the surge detector forgot or refused for want of room", "what"
)
SURGES_OPEN = _gauge("surges_open", "Surge alerts not resolved yet")
DRIFT = _gauge(
    "drift_distance", "How far a quantity is from the release's profile: PSI, or MMD", "task", "release", "quantity"
)
DRIFT_LIMIT = _gauge("drift_limit", "From where on that distance is drift", "task", "release", "quantity")
DRIFT_EVENTS = _gauge("drift_window_events", "Events that were compared with the profile", "task", "release")
EXPECTED_ACCURACY = _gauge(
    "expected_accuracy_ratio", "Accuracy that the scores of these events let expect", "task", "release"
)
EXPECTED_AT_RELEASE = _gauge(
    "expected_accuracy_at_release_ratio",
    "The same of the development texts, when the release was made",
    "task",
    "release",
)
REALISED_ACCURACY = _gauge(
    "realised_accuracy_ratio",
    "Right of the labelled predictions drawn at random",
    "task",
    "release",
    "bound",
)
LABELLED = _gauge("labelled_predictions", "Predictions that people have labelled", "task", "release")
OVERCONFIDENCE = _gauge(
    "overconfidence_ratio", "By how much their mean score is above the share of them that is right", "task", "release"
)
DRIFT_ALARM = _gauge("drift_alarm", "1 while the watch has an open alarm", "task")
LABELS_ASKED = _counter("labels_asked_total", "Texts that the watch asked people to label", "task", "why")
OF_THE_WATCH = (
    DRIFT, DRIFT_LIMIT, DRIFT_EVENTS, EXPECTED_ACCURACY, EXPECTED_AT_RELEASE, REALISED_ACCURACY, LABELLED,
    OVERCONFIDENCE, DRIFT_ALARM, LABELS_ASKED,
)  # fmt: skip
READY = _gauge("ready", "1 while /ready answers 200: partitions are assigned, and no model's texts are held")


class SourceMetrics:
    """The metrics of one source, counted a slice at a time. All start at 0: Prometheus sees no first increase."""

    def __init__(self, source: str, tasks: Sequence[str]) -> None:
        self._source = source
        self._in = EVENTS_IN.labels(source)
        self._out = {name: EVENTS_OUT.labels(source, name) for name in get_args(OutputName)}
        self._predictions = {task: PREDICTIONS.labels(source, task) for task in tasks}
        self._reviews = {task: REVIEWS.labels(task) for task in tasks}
        self._shed = SHED.labels(source)
        self._in_flight = SLICES_IN_FLIGHT.labels(source)
        self._publish_s = PUBLISH_S.labels(source)
        OUTPUT_LATENCY_S.announce(source)

    def accepted(self, records: int) -> None:
        """A slice of so many records was read."""
        self._in_flight.inc()
        self._in.inc(records)

    def decided(self, outputs: Sequence[Output]) -> Mapping[OutputName, int]:
        """These outputs follow from a slice; returns how many of each."""
        counts = Counts(output.name for output in outputs)
        for predictions in self._predictions.values():  # an event has one of each task, or none
            predictions.inc(counts["predictions"] / len(self._predictions))
        if counts.keys() - {"predictions", "observations"}:
            for output in outputs:
                if output.name in ("alerts", "routes", "review", "dead_letters", "shed"):
                    self._count(output.name, output.value)
        return counts

    def _count(self, name: str, value: Any) -> None:
        match name:
            case "alerts":
                ALERTS.labels(value["kind"], value["state"], value["severity"]).inc()
            case "routes":
                ROUTES.labels(value["action"]).inc()
            case "review":
                self._reviews[value["task"]].inc()
            case "shed":
                self._shed.inc()
            case _:
                DEAD_LETTERS.labels(self._source, value["stage"], value["error"]).inc()

    def settled(
        self, outputs: Mapping[OutputName, int], publish_s: float, stamps_ms: Sequence[int], now_s: float
    ) -> None:
        """The outputs of a slice are acknowledged; its records carry these time stamps."""
        self._in_flight.dec()
        self._publish_s.observe(publish_s)
        for name, count in outputs.items():
            self._out[name].inc(count)
        if stamps_ms:
            OUTPUT_LATENCY_S.observe(self._source, np.maximum(0.0, now_s - np.array(stamps_ms) / 1000))


ModelState = Literal["chosen", "reference", "holding"]
_PROBE_RESULTS = {True: "passed", False: "failed"}


class LadderMetrics:
    """What runs a model, under the names of its tasks. All start at 0: Prometheus sees no first increase."""

    def __init__(self, name: str) -> None:
        self._states = {state: MODEL_STATE.labels(name, state) for state in get_args(ModelState)}
        self._illnesses = {way: MODEL_ILLNESSES.labels(name, way) for way in ("chosen", "reference")}
        self._probes = {passed: MODEL_PROBES.labels(name, word) for passed, word in _PROBE_RESULTS.items()}
        self._memory = OUT_OF_MEMORY.labels(name)
        self._slowdown, self._slow = SLOWDOWN.labels(name), MODEL_SLOW.labels(name)
        self._slowdown.set(1)
        self.moved("chosen", None, None)

    def ill(self, way: str) -> None:
        """A way to run it was found ill."""
        self._illnesses[way].inc()

    def probed(self, passed: bool) -> None:
        """A way to run it was probed."""
        self._probes[passed].inc()

    def out_of_memory(self) -> None:
        """A batch did not fit."""
        self._memory.inc()

    def slowdown(self, ratio: float, slow: bool) -> None:
        """Batches take so many times what they took at the start, which is too long or not."""
        self._slowdown.set(ratio)
        self._slow.set(slow)

    def moved(self, state: ModelState, before: Loaded | None, now: Loaded | None) -> None:
        """Another way serves, or none: what did before, and what does now."""
        for each, gauge in self._states.items():
            gauge.set(each == state)
        for loaded, serves in ((before, 0), (now, 1)):
            if loaded is not None:
                model_serves(loaded, serves)


def model_serves(loaded: Loaded, serves: int) -> None:
    """Say that a model serves its tasks (1), or does not for the time being (0); a challenger never does."""
    model = loaded.model
    if loaded.challenges:
        return
    for one in loaded.served:
        MODEL_INFO.labels(one.name, model.release, model.device, model.runtime).set(serves)


def release_gone(loaded: Loaded) -> None:
    """A release is no longer here: its series end, or they would add up with every swap."""
    keys = {(one.name, loaded.model.release) for one in loaded.served}
    for labels in [one for one in MODEL_INFO._metrics if one[:2] in keys]:
        MODEL_INFO.remove(*labels)


class EffectiveOffsets:
    """From which offset on a release has scored each partition of a source; one series a task and partition."""

    def __init__(self) -> None:
        self._releases: dict[tuple[str, str, int], str] = {}

    def took_effect(self, task: str, topic: str, partition: int, release: str, offset: int) -> str | None:
        """The first offset that a release scored; returns the release before it, if there was another."""
        place = (task, topic, partition)
        before = self._releases.get(place)
        if before == release:
            return None
        if before is not None:
            RELEASE_OFFSET.remove(task, topic, str(partition), before)
        self._releases[place] = release
        RELEASE_OFFSET.labels(task, topic, str(partition), release).set(offset)
        return before


class DriftMetrics:
    """One release at work on one task, beside its profile; the labels go when it is no longer at work."""

    def __init__(self, task: str, release: str) -> None:
        self._its = (task, release)
        self._quantities: set[str] = set()
        self._of_accuracy: set[Gauge] = set()

    def moved(self, shifts: Mapping[str, Shift]) -> None:
        """How far each of these has moved."""
        for quantity, shift in shifts.items():
            self._quantities.add(quantity)
            DRIFT.labels(*self._its, quantity).set(shift.value)
            DRIFT_LIMIT.labels(*self._its, quantity).set(shift.limit)

    def expected(self, expected: Expected, at_release: float) -> None:
        """What the scores let expect, and what they did of the development texts."""
        DRIFT_EVENTS.labels(*self._its).set(expected.n)
        self._of_accuracy.add(DRIFT_EVENTS)
        if expected.accuracy is not None:
            EXPECTED_ACCURACY.labels(*self._its).set(expected.accuracy.value)
            EXPECTED_AT_RELEASE.labels(*self._its).set(at_release)
            self._of_accuracy |= {EXPECTED_ACCURACY, EXPECTED_AT_RELEASE}

    def forget(self) -> None:
        """Show nothing of it."""
        for quantity in self._quantities:
            for gauge in (DRIFT, DRIFT_LIMIT):
                gauge.remove(*self._its, quantity)
        for gauge in self._of_accuracy:
            gauge.remove(*self._its)


class WatchMetrics:
    """What the watch over drift shows of one release at one task."""

    def __init__(self, task: str, release: str) -> None:
        self.release = release
        self._its = (task, release)
        self._drift = DriftMetrics(task, release)
        self._alarm = DRIFT_ALARM.labels(task)
        self._labelled: set[Gauge] = set()
        for why in ("informative", "random"):
            LABELS_ASKED.labels(task, why)

    def stands(self, standing: Standing, of_random: Realised | None, alarm: bool) -> None:
        """How it stands, what labels of texts drawn at random say, and whether an alarm is open."""
        self._alarm.set(alarm)
        self._drift.moved(standing.shifts)
        self._drift.expected(standing.expected, standing.expected_at_release)
        if (its := standing.labelled) is not None:
            LABELLED.labels(*self._its).set(its.n)
            OVERCONFIDENCE.labels(*self._its).set(its.expected - its.accuracy.value)
            self._labelled |= {LABELLED, OVERCONFIDENCE}
        if of_random is not None:
            for bound, share in of_random.accuracy._asdict().items():
                REALISED_ACCURACY.labels(*self._its, bound).set(share)
            self._labelled.add(REALISED_ACCURACY)

    def forget(self) -> None:
        """Show nothing of it: another release serves."""
        self._drift.forget()
        for gauge in self._labelled - {REALISED_ACCURACY}:
            gauge.remove(*self._its)
        if REALISED_ACCURACY in self._labelled:
            for bound in Interval._fields:
                REALISED_ACCURACY.remove(*self._its, bound)


class ScorerMetrics:
    """The metrics of one model, under the names of its tasks."""

    def __init__(self, name: str) -> None:
        self._events, self._tokens = BATCH_EVENTS.labels(name), BATCH_TOKENS.labels(name)
        self._real, self._padded = REAL_TOKENS.labels(name), PADDED_TOKENS.labels(name)
        self._ratio, self._waited_s = PADDING_RATIO.labels(name), QUEUE_WAIT_S.labels(name)
        self._model_s, self._failures = INFERENCE_S.labels(name), MODEL_FAILURES.labels(name)
        self._long, self._windows, self._cut = LONG_TEXTS.labels(name), WINDOWS.labels(name), TEXTS_CUT.labels(name)
        self._budget, self._patience_s = BUDGET_TOKENS.labels(name), PATIENCE_S.labels(name)
        self._fixed_s, self._token_s = FIXED_COST_S.labels(name), TOKEN_COST_S.labels(name)

    def long_text(self, windows: int, cut: bool) -> None:
        """A text takes several windows, or more than there may be."""
        self._long.inc()
        self._windows.inc(windows)
        self._cut.inc(cut)

    def ran(self, batch: Batch[Any], padded_tokens: int, seconds: float) -> None:
        """The model took so long over a batch, which was so many tokens with its padding."""
        self._events.observe(len(batch.items))
        self._tokens.observe(padded_tokens)
        self._real.inc(batch.tokens)
        self._padded.inc(padded_tokens)
        self._ratio.set(padded_tokens / max(1, batch.tokens))
        self._waited_s.observe(batch.waited_s)
        self._model_s.observe(seconds)

    def learned(self, pace: Pace) -> None:
        """What was learned from it."""
        self._budget.set(pace.limits.max_tokens)
        self._fixed_s.set(pace.cost.fixed_s)
        self._token_s.set(pace.cost.per_token_s)
        self._patience_s.set(pace.patience_s(1, 1))

    def failed(self, runs: int = 1) -> None:
        """The model refused so many batches."""
        self._failures.inc(runs)
