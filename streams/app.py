"""The worker's wiring, all in one place: sources, models, agents and outputs of one process.

source topic -> agent -> SourcePipeline -> predictions, alerts, routes, review, dead letters, observations
observations -> agent -> SurgePipeline  -> alerts, surge state
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import faust
from faust.types import TP

from models.releases import home
from streams import metrics
from streams.adaptive import Bounds
from streams.consuming import Slice, SliceConsumer, require_known_faust, slice_transport
from streams.device import Device
from streams.evidence import AlertEvidence
from streams.exits import end_process, guarded
from streams.grants import grants, require_access
from streams.intake import Intake
from streams.learning.drift_meter import DriftMeter
from streams.learning.rollout import Rollout, prepare
from streams.learning.shadow import Shadow
from streams.live import Loaded
from streams.pipeline import SourcePipeline
from streams.publishing import Publisher
from streams.record_batches import MIB
from streams.refusals import refusal_in, who
from streams.room import Room
from streams.scoring import Scorer
from streams.security import faust_credentials, librdkafka_config
from streams.settings import OUTPUT_TOPICS, BrokerSettings, Settings
from streams.standing import keep_standing
from streams.surge_pipeline import SurgePipeline

log = logging.getLogger(__name__)

_TROUBLE_S = 15.0  # librdkafka reports a lost connection again every ten seconds
_SLICES_BUFFERED = 4  # per agent, inside Faust; what is in flight beyond them is the pipelines' to bound


Loop = Callable[[], Coroutine[Any, Any, None]]  # runs until cancelled


class _Accepts(Protocol):
    async def accept(self, one: Slice) -> None: ...


@dataclass(frozen=True)
class Worker:
    """What one process runs: the Faust app, and the loops beside it, by name."""

    app: faust.App
    publisher: Publisher
    device: Device
    loops: Mapping[str, Loop]

    @property
    def consumer(self) -> SliceConsumer:
        """The app's consumer, once the app has started."""
        return cast(SliceConsumer, self.app.consumer)

    def start_loops(self) -> list[asyncio.Task[None]]:
        """Run every loop; one that fails ends the process."""
        return [guarded(loop(), name) for name, loop in self.loops.items()]


def build_worker(settings: Settings, models: Sequence[Loaded]) -> Worker:
    """Wire everything; nothing is started yet. Call it inside the running event loop.

    Raises:
        consuming.UnknownFaust: the installed Faust was not tested.
    """
    require_known_faust()
    app = _faust_app(settings)
    topics = {name: getattr(settings.topics, name) for name in OUTPUT_TOPICS}
    broker = settings.broker
    publisher = Publisher(librdkafka_config(broker), topics, broker.delivery_timeout_s, who(broker))
    scorer = functools.partial(Scorer, bounds=_bounds(settings))
    scorers = [scorer(one) for one in models]
    slots = max(one.model.slots for one in models)
    device = Device(scorers, slots, hang_s=settings.models.hang_s, hold_limit_s=settings.models.hold_limit_s)
    loops: dict[str, Loop] = {"device": device.run}
    pipelines: dict[str, SourcePipeline] = {}
    drift = None
    if settings.drift.samples_per_s:
        drift = DriftMeter(settings.drift.samples_per_s, settings.drift.window_s)
        loops["drift"] = drift.run

    shadow = Shadow(publisher)

    def finish(one: Slice) -> None:
        one.finish(cast(SliceConsumer, app.consumer))

    for name, source in settings.active_sources.items():
        its = [one for one in scorers if one.serves(source.tasks)]
        patience_s = settings.models.explain_alerts_ms / 1000
        pipeline = SourcePipeline(
            Intake(name, source, settings.intake),
            its,
            source.tasks,
            source.priority,
            publisher,
            settings.surge,
            Room(settings.batching.max_slices_in_flight, settings.intake.max_expanded_batch_mib * MIB),
            finish,
            source.shed_after_s,
            AlertEvidence(patience_s) if patience_s else None,
            drift,
            shadow,
        )
        pipelines[name] = pipeline
        loops[f"source-{name}"] = pipeline.run
        _add_agent(app, source.topic, f"source-{name}", pipeline, broker)
    if settings.watches_surges:
        _add_agent(app, settings.topics.observations, "surges", SurgePipeline(settings, publisher, finish), broker)
    rollout = Rollout(settings, device, pipelines, scorers, scorer, functools.partial(prepare, settings))
    loops["releases"] = rollout.run

    def troubled() -> bool:
        return publisher.troubled(_TROUBLE_S) or (app.started and not cast(SliceConsumer, app.consumer).is_member())

    loops["standing with the broker"] = functools.partial(
        keep_standing, troubled, functools.partial(require_access, settings, grants(settings, "worker"))
    )
    return Worker(app, publisher, device, loops)


def _bounds(settings: Settings) -> Bounds:
    batching = settings.batching
    return Bounds(
        batching.max_batch_events,
        batching.min_batch_tokens,
        batching.max_batch_tokens,
        batching.max_wait_ms / 1000,
        batching.target_p99_ms / 1000,
    )


def _faust_app(settings: Settings) -> faust.App:
    broker = settings.broker
    urls = ";".join(f"kafka://{address}" for address in broker.bootstrap.split(","))
    credentials = faust_credentials(broker)
    app = faust.App(
        broker.group,
        broker=urls,
        broker_credentials=credentials,
        broker_commit_interval=broker.commit_interval_ms / 1000,
        broker_session_timeout=broker.session_timeout_s,
        broker_heartbeat_interval=broker.session_timeout_s / 10,
        broker_rebalance_timeout=broker.rebalance_timeout_s,
        broker_request_timeout=max(90.0, 2 * broker.session_timeout_s),
        broker_max_poll_interval=86_400.0,
        broker_max_poll_records=4 * settings.batching.max_slice_events,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=max(settings.intake.max_event_bytes, 1_048_576),
        stream_buffer_maxsize=_SLICES_BUFFERED,
        stream_wait_empty=True,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        reply_create_topic=False,
        key_serializer="raw",
        value_serializer="raw",
        datadir=str(_faust_directory()),
    )
    transport = slice_transport(
        settings.batching.max_slice_events, broker.fetch_max_wait_ms, settings.intake.max_expanded_batch_mib
    )
    app.transport = transport(app.conf.broker_consumer, app)
    return app


def _faust_directory() -> Path:
    """Faust makes this directory at every start; without tables it stays empty."""
    directory = home() / "faust"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _add_agent(app: faust.App, topic: str, name: str, pipeline: _Accepts, broker: BrokerSettings) -> None:
    async def agent(stream: Any) -> None:
        stream.enable_acks = False  # a slice is acknowledged by `finish` alone
        try:
            async for event in stream.events():
                await pipeline.accept(event.message)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            end_process(f"agent {name} failed", refusal_in(error, broker) or error)

    app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=name)(agent)


def observe_lag(consumer: SliceConsumer, shown: set[TP]) -> int:
    """Set the lag metric of every assigned partition, and of no other; returns their sum.

    `shown` holds the partitions of the last call and is brought up to date.
    """
    lags = consumer.lag()
    for tp in shown - lags.keys():
        metrics.LAG.remove(tp.topic, str(tp.partition))
    shown.clear()
    shown.update(lags)
    for tp, lag in lags.items():
        metrics.LAG.labels(tp.topic, str(tp.partition)).set(lag)
    return sum(lags.values())
