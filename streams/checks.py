"""What `streamgauge check` looks at before a worker starts: each finding is a row, and nothing raises.

configuration -> security -> broker -> topics -> models -> device -> metrics
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from streams.exits import AccessRefused, BrokerUnavailable
from streams.grants import Grant, grants, missing_grants
from streams.refusals import who
from streams.security import SecurityError, librdkafka_config
from streams.settings import FILE_NAME, Settings
from streams.topics import TopicSpec, TopicState, connect, is_embedded, topic_states, wanted_topics

SAFE_REPLICATION = 3
SAFE_IN_SYNC = 2
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MARKS = {True: Text("ok", "green"), None: Text("warning", "yellow"), False: Text("failed", "bold red")}


@dataclass(frozen=True)
class Check:
    """One finding. `ok` True is fine, None a warning, False keeps a worker from running; `todo` says what to do."""

    name: str
    ok: bool | None
    detail: str
    todo: str = ""


def run_checks(settings: Settings, config_file: Path | None = None) -> list[Check]:
    """Check everything a worker with these settings needs; a failure is a row, never an exception.

    Args:
        settings: what `load_settings` gave.
        config_file: the file it was told to read; without it `./streamgauge.toml`, if there is one, is named.
    """
    parts: list[tuple[str, Callable[[], Iterable[Check]]]] = [
        ("configuration", partial(_configuration, settings, config_file)),
        ("security", partial(_security, settings)),
        ("broker", partial(_broker_and_topics, settings)),
        *((f"model {task}", partial(_model, settings, task)) for task in settings.tasks),
        ("device", lambda: [_device(settings)]),
        ("metrics", lambda: [_metrics(settings)]),
    ]
    return [check for name, part in parts for check in _guarded(name, part)]


def render(checks: list[Check]) -> Table:
    """The findings as a table for a terminal."""
    table = Table("check", "", title="streamgauge check", title_justify="left")
    table.add_column("finding", overflow="fold")  # ids and paths are worth their length
    table.add_column("what to do", overflow="fold")
    for check in checks:
        table.add_row(Text(check.name), _MARKS[check.ok], Text(check.detail), Text(check.todo))
    return table


def _guarded(name: str, part: Callable[[], Iterable[Check]]) -> list[Check]:
    try:
        return list(part())
    except Exception as error:  # the promise is a row for whatever happens
        return [Check(name, False, f"{type(error).__name__}: {error}", "this check itself failed; please report it")]


def _configuration(settings: Settings, config_file: Path | None) -> Iterable[Check]:
    read = config_file or (Path(FILE_NAME) if Path(FILE_NAME).is_file() else None)
    where = f"{read.resolve()} over the shipped defaults" if read else "the shipped defaults"
    sources = ", ".join(settings.active_sources) or "none"
    detail = f"read from {where} and the environment; active sources: {sources}"
    todo = "" if settings.active_sources else "set `enabled = true` in one of [sources.*]"
    yield Check("configuration", bool(settings.active_sources), detail, todo)
    if settings.surge.task not in settings.tasks:
        asked = f"no active source asks for surge.task {settings.surge.task!r}: surges will not be seen"
        yield Check("surge task", None, asked, f"set surge.task to one of {', '.join(settings.tasks)}")


def _security(settings: Settings) -> Iterable[Check]:
    broker = settings.broker
    try:
        protocol = librdkafka_config(broker)["security.protocol"]
    except (SecurityError, AccessRefused, BrokerUnavailable) as error:
        yield Check("security", False, str(error), "mend the file or the setting, then check again")
        return
    names = {
        "PLAINTEXT": "plain text, no user",
        "SSL": "TLS" + (" with a client certificate" if broker.cert_file else ", no user"),
        "SASL_SSL": f"TLS, {who(broker)}",
        "SASL_PLAINTEXT": f"no TLS, {who(broker)}",
    }
    hosts = {address.rsplit(":", 1)[0].strip("[]") for address in broker.bootstrap.split(",")}
    if broker.tls or hosts <= set(_LOOPBACK):
        idle = [name for name in ("ca_file", "cert_file", "key_file") if getattr(broker, name) and not broker.tls]
        todo = f"broker.{idle[0]} has no effect without broker.tls = true" if idle else ""
        yield Check("security", None if idle else True, names[protocol], todo)
    else:
        secret = "the password or token and " if broker.authenticates else ""
        todo = f"{secret}all text go over the network in the clear: set broker.tls = true"
        yield Check("security", None, names[protocol], todo)


def _broker_and_topics(settings: Settings) -> Iterable[Check]:
    try:
        admin, cluster = connect(settings)
    except (SecurityError, AccessRefused) as error:
        yield Check("broker", False, str(error), "correct the setting, or have the access given, then check again")
        return
    except BrokerUnavailable as error:
        yield Check("broker", False, str(error), "start one with `streamgauge broker kafka`, or set broker.bootstrap")
        return
    kind = "embedded broker (in memory, forgets everything)" if is_embedded(cluster) else "Kafka"
    todo = "for the demo and tests only: use Kafka for anything that must last" if is_embedded(cluster) else ""
    detail = f"{kind} at {settings.broker.bootstrap}, {len(cluster.brokers)} broker(s), cluster {cluster.cluster_id}"
    yield Check("broker", None if is_embedded(cluster) else True, detail, todo)
    if not is_embedded(cluster):
        yield _access(settings, missing_grants(settings, admin, grants(settings, "worker")))
    states = {state.name: state for state in topic_states(admin, cluster)}
    of_worker = {grant.name for grant in grants(settings, "worker")}
    for spec in wanted_topics(settings):
        if spec.name in states or spec.name in of_worker or is_embedded(cluster):
            yield _topic(spec, states.get(spec.name), is_embedded(cluster))
        else:
            unseen = "not there, or not for this user to see; a worker does without it"
            yield Check(f"topic {spec.name}", None, unseen, "streamgauge topics create")
    paired = [states.get(name) for name in (settings.topics.observations, settings.topics.surge_state)]
    if paired[0] and paired[1] and paired[0].partitions != paired[1].partitions:
        detail = " but ".join(f"{state.name} has {state.partitions}" for state in paired if state)
        yield Check("partitions", False, detail, "give both topics the same number: make the smaller one anew")


def _access(settings: Settings, missing: list[Grant]) -> Check:
    name = who(settings.broker)
    if not missing:
        return Check("access", True, f"{name} is allowed all that a worker needs")
    what = ", ".join(f"{one.operation} {one.kind} {one.name}" for one in missing)
    return Check("access", False, f"{name} is not allowed to: {what}", "run the lines of: streamgauge acls worker")


def _topic(spec: TopicSpec, state: TopicState | None, embedded: bool) -> Check:
    name = f"topic {spec.name}"
    if state is None and embedded:
        return Check(name, None, "not there yet", "the embedded broker makes it at its first use, with four partitions")
    if state is None:
        return Check(name, False, "not there", "streamgauge topics create")
    detail = f"{state.partitions} partitions, replication {state.replication}"
    if state.config:
        span = f"{state.retention_hours:g} h" if state.retention_hours else "everything"
        kept = "compacted" if state.compacted else f"keeps {span}"
        detail += f", min.insync.replicas {state.config.get('min.insync.replicas')}, {kept}"
    if embedded:
        return Check(name, True, detail)
    if spec.compacted and state.config and not state.compacted:
        todo = "its values would be lost with time: set cleanup.policy=compact with kafka-configs.sh --alter"
        return Check(name, False, detail, todo)
    warnings = list(_topic_warnings(spec, state))
    return Check(name, None if warnings else True, detail, "; ".join(warnings))


def _topic_warnings(spec: TopicSpec, state: TopicState) -> Iterable[str]:
    if state.partitions < spec.partitions:
        yield f"fewer than topics.partitions ({spec.partitions}): add some, or lower the setting"
    if not spec.compacted and state.compacted:
        yield "compacted, so older events with the same key vanish: set cleanup.policy=delete"
    wanted_hours = int(spec.config.get("retention.ms", 0)) / 3_600_000
    if state.retention_hours is not None and state.retention_hours < wanted_hours:
        yield f"keeps less than topics.retention_hours ({wanted_hours:g}): raise retention.ms"
    if state.replication < SAFE_REPLICATION:
        yield f"replication under {SAFE_REPLICATION}: the loss of a disk can lose data (fine on one machine)"
    elif int(state.config.get("min.insync.replicas", SAFE_IN_SYNC)) < SAFE_IN_SYNC:
        yield f"min.insync.replicas under {SAFE_IN_SYNC}: an acknowledged event may be on one disk only"


def _model(settings: Settings, task: str) -> Iterable[Check]:
    """Loads it as a worker would; what is measured on the way is remembered, so the worker starts at once."""
    # Imported here: everything above also serves where no model runtime is installed.
    from models.classifier import Model
    from models.errors import DeviceUnavailable, ModelError, RuntimeUnavailable
    from models.releases import find_release

    name, chosen = f"model {task}", settings.models
    try:
        directory = find_release(task, chosen.releases.get(task))
        model = Model.load(directory, device=chosen.device, runtime=chosen.runtime, threads=chosen.threads)
    except (DeviceUnavailable, RuntimeUnavailable) as error:
        yield Check(name, False, str(error), "set models.device and models.runtime to auto, or install what is missing")
        return
    except ModelError as error:
        todo = f"streamgauge train {task} --data FILE.jsonl, or set models.releases.{task}"
        yield Check(name, False, str(error), todo)
        return
    serves = f"{len(model.heads[task].labels)} labels, on {model.runtime}, {model.slots} run(s) at once"
    yield Check(name, True, f"{model.release}, {serves}, files verified, in {directory}")


def _device(settings: Settings) -> Check:
    import onnxruntime

    wanted, version = settings.models.device, onnxruntime.__version__
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    built = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    # What the driver offers: a build with CUDA names its provider on machines without a device, too.
    present = bool(list(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists())
    seen = "a CUDA device" if present else "no CUDA device"
    asked = f"models.device = {wanted}, models.runtime = {settings.models.runtime}"
    detail = f"{asked}; onnxruntime {version} with {providers}; {seen}"
    if wanted == "cuda" and not (built and present):
        todo = "install onnxruntime-gpu" if present else "set models.device to auto or cpu, or make the device visible"
        return Check("device", False, detail, todo)
    if wanted == "auto" and present and not built:
        return Check("device", None, detail, "this onnxruntime cannot use the device: install onnxruntime-gpu")
    return Check("device", True, detail)


def _metrics(settings: Settings) -> Check:
    host, port = settings.metrics.host, settings.metrics.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except OSError as error:
        todo = "set metrics.host and metrics.port to an address of this machine that is free (is a worker running?)"
        return Check("metrics", False, f"{host}:{port} cannot be bound: {error.strerror}", todo)
    detail = f"{host}:{port} is free" if port else f"{host}, a free port"
    if host in _LOOPBACK:
        return Check("metrics", True, detail)
    return Check("metrics", None, detail, "anyone who reaches this address can read the metrics: 127.0.0.1 is loopback")
