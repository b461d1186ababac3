"""One frozen tree of settings: shipped `defaults.toml`, then `streamgauge.toml`, then `STREAMGAUGE_*`.

Nothing else in the project reads the environment or a configuration file. A nested key is written with two
underscores in the environment: `STREAMGAUGE_BROKER__BOOTSTRAP`. A wrong key or value raises `SettingsError`, which
names the key, what is allowed and where it was read.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.learning.curation import CurationSettings
from models.learning.sequential import DuelSettings
from models.learning.verdict import GateSettings
from streams.events import OutputName

LANES = ("risk", "chat", "bulk")  # in the order of their priority
DEFAULTS = Path(__file__).with_name("defaults.toml")
FILE_NAME = "streamgauge.toml"
_PREFIX = "STREAMGAUGE_"
_NOT_SETTINGS = {"STREAMGAUGE_HOME", "STREAMGAUGE_CONFIG"}
MAX_FILE_BYTES = 1 << 20  # a configuration that is larger is the wrong file

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[^.\s]+(\.[^.\s]+)*$", max_length=200)]


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, the allowed values and where it was read."""


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(Section):
    """How to reach Kafka, and the timing of the consumer group."""

    bootstrap: Annotated[str, StringConstraints(pattern=r"^[^\s,]+:\d{1,5}(,[^\s,]+:\d{1,5})*$")]
    group: Name
    tls: bool
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    token_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=2000)] | None = None
    token_scope: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e][\x20-\x7e]*$", max_length=1000)] | None = None
    token_ca_file: Path | None = None
    allow_plaintext_credentials: bool = False
    fetch_max_wait_ms: int = Field(ge=1, le=30_000)
    session_timeout_s: float = Field(ge=1, le=600)
    rebalance_timeout_s: float = Field(ge=1, le=3600)
    commit_interval_ms: int = Field(ge=50, le=60_000)
    delivery_timeout_s: float = Field(ge=1, le=3600)

    @property
    def authenticates(self) -> bool:
        """Whether clients say who they are over SASL, by password or by token."""
        return self.username is not None or self.token_file is not None

    @model_validator(mode="after")
    def _credentials_are_whole_and_covered(self) -> Self:
        _require_one_way_in(self)
        if self.username is None:
            if self.password is not None or self.password_file is not None:
                raise ValueError("password needs username")
        elif (self.password is None) == (self.password_file is None):
            raise ValueError("username needs exactly one of password and password_file")
        if not self.allow_plaintext_credentials:
            if self.authenticates and not self.tls:
                raise ValueError(
                    "username without tls would send the password in the clear, and a token_file its token: set "
                    "tls = true, or allow_plaintext_credentials = true if the network is yours alone"
                )
            if self.token_url is not None and not self.token_url.startswith("https://"):
                raise ValueError(
                    "token_url over http would send the client's secret in the clear: give an https:// address, or "
                    "set allow_plaintext_credentials = true if the network is yours alone"
                )
        return self


def _require_one_way_in(broker: BrokerSettings) -> None:
    if broker.mechanism != "OAUTHBEARER":
        given = [name for name in ("token_file", "token_url", "token_scope", "token_ca_file") if getattr(broker, name)]
        if given:
            raise ValueError(f'{given[0]} needs mechanism = "OAUTHBEARER"')
    elif (broker.token_file is None) == (broker.token_url is None):
        raise ValueError('mechanism = "OAUTHBEARER" needs exactly one of token_file and token_url')
    elif broker.token_file is not None and broker.username is not None:
        raise ValueError("token_file says who the client is: leave username and its password out")
    elif broker.token_url is not None and broker.username is None:
        raise ValueError("token_url needs username and password or password_file: the client's id and secret")


class TopicSettings(Section):
    """Names of the topics Streamgauge writes, and how `streamgauge topics create` makes them."""

    predictions: Name
    alerts: Name
    routes: Name
    review: Name
    dead_letters: Name
    shed: Name
    feedback: Name
    releases: Name
    drift: Name
    observations: Name
    surge_state: Name
    shadow: Name
    partitions: int = Field(ge=1, le=1000)
    replication: int = Field(ge=1, le=10)
    retention_hours: int = Field(ge=1, le=24 * 3650)


class IntakeSettings(Section):
    """Bounds on what one event may be, and the compressed batch it comes in; beyond them it becomes a dead letter."""

    max_expanded_batch_mib: int = Field(ge=8, le=1024)
    max_event_bytes: int = Field(ge=100, le=5_000_000)
    max_depth: int = Field(ge=1, le=200)
    max_text_chars: int = Field(ge=1, le=1_000_000)
    earliest_time: datetime
    max_future_s: float = Field(ge=0, le=86_400)


class BatchingSettings(Section):
    """When a micro-batch closes, and how much work may be in flight."""

    max_batch_events: int = Field(ge=1, le=65_536)
    min_batch_tokens: int = Field(ge=16, le=1_000_000)
    max_batch_tokens: int = Field(ge=16, le=10_000_000)
    max_wait_ms: float = Field(ge=0, le=10_000)
    target_p99_ms: float = Field(ge=1, le=60_000)
    max_slice_events: int = Field(ge=1, le=10_000)
    max_slices_in_flight: int = Field(ge=1, le=1000)

    @model_validator(mode="after")
    def _tokens_are_a_range(self) -> Self:
        if self.min_batch_tokens > self.max_batch_tokens:
            raise ValueError(
                f"min_batch_tokens = {self.min_batch_tokens} is above max_batch_tokens = {self.max_batch_tokens}"
            )
        return self


class ModelSettings(Section):
    """Where the classifiers run, which release serves each task, and the task files of your own."""

    device: Literal["auto", "cpu", "cuda"]
    runtime: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,50}$")]
    threads: int | None = Field(default=None, ge=1, le=256)
    hang_s: float = Field(ge=5, le=3600)
    hold_limit_s: float = Field(ge=1, le=86_400)
    explain_alerts_ms: float = Field(ge=0, le=10_000)
    releases: dict[Name, str] = {}
    tasks: dict[Name, Path] = {}


class SurgeSettings(Section):
    """The surge detector: `label` of `task` per entity, in tumbling event-time buckets."""

    task: Name
    label: str
    bucket_s: int = Field(ge=1, le=86_400)
    window_buckets: int = Field(ge=1, le=1000)
    baseline_buckets: int = Field(ge=1, le=10_000)
    min_support: int = Field(ge=1)
    ratio: float = Field(gt=1)
    significance: float = Field(gt=0, lt=1)
    resolve_ratio: float = Field(gt=0)
    cooldown_s: float = Field(ge=0)
    lateness_s: float = Field(ge=0)
    max_entities: int = Field(ge=1, le=1_000_000)
    max_state_mib: float = Field(gt=0, le=100_000)

    @model_validator(mode="after")
    def _resolves_below_where_it_opens(self) -> Self:
        if self.resolve_ratio >= self.ratio:
            raise ValueError(f"resolve_ratio = {self.resolve_ratio:g} must be below ratio = {self.ratio:g}")
        return self


class FeedbackSettings(Section):
    """How people's labels become versions of the data set, one task at a time."""

    wait_s: float = Field(ge=0, le=30 * 86_400)
    collect_every_s: float = Field(ge=1, le=86_400)
    index_rows: int = Field(ge=1000, le=100_000_000)
    max_opinions: int = Field(ge=1, le=100_000_000)
    keep_versions: int = Field(ge=2, le=1_000_000)


class DriftSettings(Section):
    """What is compared with the profile of a release, and how many labels a person may be asked for."""

    samples_per_s: float = Field(ge=0, le=1000)
    window_s: float = Field(ge=60, le=7 * 86_400)
    look_every_s: float = Field(ge=1, le=3600)
    labels_a_day: int = Field(ge=0, le=100_000)
    labels_to_retrain: int = Field(ge=1, le=1_000_000)
    port: int = Field(ge=0, le=65_535)


class RetrainSettings(Section):
    """How `streamgauge retrain` makes a champion's successor, and what it may take of the machine.

    `knobs` are those of training that replace the recipe's, `curation` and `gate` what those let pass.
    """

    every_s: float = Field(ge=1, le=30 * 86_400)
    cooldown_s: float = Field(ge=0, le=365 * 86_400)
    least_new: int = Field(ge=1, le=1_000_000)
    most_old: int = Field(ge=10, le=1_000_000)
    shadow_share: float = Field(ge=0, le=1)
    nice: int = Field(ge=0, le=19)
    cores: int = Field(ge=1, le=1024)
    max_memory_mib: int = Field(ge=512, le=10_000_000)
    knobs: dict[str, Any] = {}
    curation: CurationSettings = CurationSettings()
    gate: GateSettings = GateSettings()


Address = Annotated[str, StringConstraints(pattern=r"^[^\s/@:]+:\d{1,5}$", max_length=300)]


class RolloutSettings(Section):
    """How what is promoted is watched over (`streamgauge releases watch`), and when it is taken back.

    `workers` are the host:port of the workers' metrics, `duel` when labels decide.
    """

    look_every_s: float = Field(ge=1, le=3600)
    watch_s: float = Field(ge=0, le=90 * 86_400)
    watch_share: float = Field(ge=0, le=1)
    least_dead_letters: int = Field(ge=1, le=1_000_000)
    most_dead_share: float = Field(gt=0, lt=1)
    workers: tuple[Address, ...] = ()
    duel: DuelSettings = DuelSettings()


class MetricsSettings(Section):
    """Where Prometheus scrapes; loopback unless said otherwise. Port 0 takes a free one."""

    host: str
    port: int = Field(ge=0, le=65_535)


class WorkerSettings(Section):
    """Deadlines of the worker process."""

    shutdown_s: float = Field(ge=1, le=600)
    recovery_s: float = Field(ge=1, le=3600)
    stall_s: float = Field(ge=5, le=3600)
    max_memory_mib: int = Field(ge=64, le=10_000_000)


class Source(Section):
    """One input topic: where in its JSON objects the text, id, time, key and entities are, and which tasks score it.

    Paths are dotted (`body.subject`); a number picks a list element. `text` joins those of its paths that are present.
    Events that waited for longer than `shed_after_s` go to the topic `shed` unscored; without it all are scored.
    Texts of a higher `lane` go to the model first: by default transactions in `risk`, chat in `chat`, news in `bulk`.
    `id`, `time` and `key` may be left out: then the coordinates, the broker's time stamp and the message key serve.
    """

    topic: Name
    kind: Literal["news", "chat", "transaction"]
    lane: Literal["risk", "chat", "bulk"] | None = None
    text: tuple[FieldPath, ...] = Field(min_length=1)
    id: FieldPath | None = None
    time: FieldPath | None = None
    key: FieldPath | None = None
    entities: FieldPath | None = None
    tasks: tuple[Name, ...] = Field(min_length=1)
    shed_after_s: float | None = Field(default=None, ge=1)
    enabled: bool = True

    @property
    def priority(self) -> int:
        """The lane's number; 0 goes first."""
        return LANES.index(self.lane or {"transaction": "risk", "chat": "chat", "news": "bulk"}[self.kind])


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__", hide_input_in_errors=True
    )

    broker: BrokerSettings
    topics: TopicSettings
    intake: IntakeSettings
    batching: BatchingSettings
    models: ModelSettings
    surge: SurgeSettings
    feedback: FeedbackSettings
    drift: DriftSettings
    retrain: RetrainSettings
    rollout: RolloutSettings
    metrics: MetricsSettings
    worker: WorkerSettings
    sources: dict[Name, Source]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the files, which come in as arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _topics_do_not_clash(self) -> Self:
        outputs = {getattr(self.topics, n) for n in OUTPUT_TOPICS}
        if len(outputs) < len(OUTPUT_TOPICS):
            raise ValueError("topics: two outputs share one topic name")
        read_by: dict[str, str] = {}
        for name, source in self.active_sources.items():
            if source.topic in outputs:
                raise ValueError(f"sources.{name}.topic: {source.topic!r} is an output topic; it would feed on itself")
            if other := read_by.get(source.topic):
                raise ValueError(f"sources.{name}.topic: {source.topic!r} is read by sources.{other}; add tasks there")
            read_by[source.topic] = name
        return self

    @property
    def active_sources(self) -> dict[str, Source]:
        """The sources that are switched on."""
        return {name: source for name, source in self.sources.items() if source.enabled}

    @property
    def sheds(self) -> bool:
        """Whether some active source may set events aside unscored."""
        return any(source.shed_after_s is not None for source in self.active_sources.values())

    @property
    def watches_surges(self) -> bool:
        """Whether some active source feeds the surge detector."""
        return any(source.entities and self.surge.task in source.tasks for source in self.active_sources.values())

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task some active source asks for, sorted."""
        return tuple(sorted({task for source in self.active_sources.values() for task in source.tasks}))


OUTPUT_TOPICS: tuple[OutputName, ...] = get_args(OutputName)
TOPICS = tuple(name for name, field in TopicSettings.model_fields.items() if field.annotation is str)  # all of ours


def load_settings(path: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        path: a configuration file; without it `$STREAMGAUGE_CONFIG` or `./streamgauge.toml`, if there is one.
        env: looked at only for names of unknown variables and in error messages; the process's own by default.

    Raises:
        SettingsError: naming the key, the allowed values and where the value was read.
    """
    env = os.environ if env is None else env
    chosen = path or (Path(env["STREAMGAUGE_CONFIG"]) if env.get("STREAMGAUGE_CONFIG") else None)
    if chosen is None and Path(FILE_NAME).is_file():
        chosen = Path(FILE_NAME)
    shipped = _read_toml(DEFAULTS)
    given = _read_toml(chosen) if chosen else {}
    _refuse_unknown_variables(env)
    try:
        return Settings(**_merged(shipped, given))
    except ValidationError as error:
        raise SettingsError(_explain(error, given, chosen, env)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError(f"{path}: is larger than {MAX_FILE_BYTES} bytes; give the settings file with --config")
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply; give the settings file with --config") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give a file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: is not valid TOML: {error}") from None


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        out[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return out


def _refuse_unknown_variables(env: Mapping[str, str]) -> None:
    known = sorted(Settings.model_fields)
    for variable in env:
        if variable.upper().startswith(_PREFIX) and variable not in _NOT_SETTINGS:
            section = variable[len(_PREFIX) :].split("__")[0].lower()
            if section not in known:
                raise SettingsError(
                    f"{variable}: no such setting; sections are {', '.join(known)}, "
                    f"written like {_PREFIX}BROKER__BOOTSTRAP (read from the environment)"
                )


def _explain(error: ValidationError, given: dict[str, Any], path: Path | None, env: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        loc = [str(part) for part in problem["loc"] if part != "[key]"]
        key = ".".join(loc) or "settings"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"no such setting{_suggestion(loc)}"
        lines.append(f"{key}: {message} (read from {_origin(loc, given, path, env)})")
    return "\n".join(lines)


def _suggestion(loc: list[str]) -> str:
    section: Any = Settings
    for part in loc[:-1]:
        if section is Source or part not in getattr(section, "model_fields", {}):
            section = Source
            continue
        section = section.model_fields[part].annotation
        section = Source if part == "sources" else section
    names = sorted(getattr(section, "model_fields", {}))
    near = difflib.get_close_matches(loc[-1], names, n=1)
    return (f"; did you mean {near[0]!r}?" if near else "") + (f" Allowed: {', '.join(names)}" if names else "")


def _origin(loc: list[str], given: dict[str, Any], path: Path | None, env: Mapping[str, str]) -> str:
    for depth in range(len(loc), 0, -1):
        variable = _PREFIX + "__".join(loc[:depth]).upper()
        if any(name.upper() == variable for name in env):
            return f"the environment variable {variable}"
    node: Any = given
    for part in loc:
        if not isinstance(node, dict) or part not in node:
            return "the shipped defaults" if path is None else f"{path} over the shipped defaults"
        node = node[part]
    return str(path)
