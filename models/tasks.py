"""A task: what is decided on which label, and how a model for it is trained by default.

A task is a TOML file, shipped in `models/tasks/` or given by path. The label set of a release comes from its training
data; a label that the task file does not name is scored and published, and nothing is decided on it.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from models.errors import BadKnob, BadTask
from models.train_settings import settings_of
from models.windows import Rule

SHIPPED = Path(__file__).with_name("tasks")
MAX_TASK_BYTES = 1 << 20
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

PACKAGED_BASE = "all-MiniLM-L6-v2"  # the encoder that the train extra carries: no download


class LabelPolicy(BaseModel):
    """What follows when an event gets this label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alert_above: float | None = Field(default=None, ge=0, le=1, description="raise an alert from this score on")
    severity: Literal["low", "medium", "high"] = "medium"
    queue: str | None = Field(default=None, min_length=1, description="the contact-centre queue to route to")
    template: str | None = Field(default=None, min_length=1, description="an answer that is safe to send unread")


_DECIDES_NOTHING = LabelPolicy()


class Task(BaseModel):
    """One classification task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{NAME.pattern}$")
    max_tokens: int = Field(default=128, ge=4, le=512, description="a longer text is read in windows of so many tokens")
    base: str = Field(default=PACKAGED_BASE, min_length=1, description="the packaged encoder, a path, or a hub name")
    review_below: float = Field(default=0.5, ge=0, le=1, description="a person reviews scores under this")
    false_acceptance: float = Field(default=0.2, gt=0, lt=1, description="of texts out of scope, taken for in scope")
    most_turned_away: float = Field(default=0.03, ge=0, lt=1, description="of texts in scope, for the sake of that")
    labels: dict[str, LabelPolicy] = Field(default_factory=dict)
    long_text: Rule = Field(default="mean", description="how the windows of a long text make one row of scores")
    recipe: str | None = Field(default=None, description="how to train; left out: chosen by the data")
    training: dict[str, Any] = Field(default_factory=dict, description="knobs of training that replace the recipe's")

    @field_validator("long_text")
    @classmethod
    def _max_looks_for_something(cls, rule: Rule, others: ValidationInfo) -> Rule:
        labels: dict[str, LabelPolicy] | None = others.data.get("labels")  # None: they are wrong themselves
        if rule == "max" and labels is not None and all(policy.alert_above is None for policy in labels.values()):
            raise ValueError('"max" looks for labels that alert: set alert_above on one, or choose "mean"')
        return rule

    @field_validator("training")
    @classmethod
    def _knobs_that_there_are(cls, knobs: dict[str, Any]) -> dict[str, Any]:
        try:
            settings_of(knobs, "training")
        except BadKnob as error:
            raise ValueError(str(error).removeprefix("training: ")) from error
        return knobs

    def alert_columns(self, labels: Sequence[str]) -> list[int]:
        """Where in a release's labels those are that raise an alert."""
        return [column for column, label in enumerate(labels) if self.policy(label).alert_above is not None]

    def policy(self, label: str) -> LabelPolicy:
        """The policy of a label; for one the task does not name, the policy that decides nothing."""
        return self.labels.get(label, _DECIDES_NOTHING)


def shipped_tasks() -> tuple[str, ...]:
    """The names of the tasks that come with the package, sorted."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_task(name_or_path: str) -> Task:
    """The shipped task of this name, or the task file at this path.

    A name that is not shipped gives a task with the defaults and no label policies.
    Raises BadTask naming file, field, value and what is allowed.
    """
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return _read(Path(name_or_path))
    if not NAME.fullmatch(name_or_path):
        raise BadTask(
            f"{name_or_path!r} is no task name: small letters, digits, `-` and `_`, a letter first, 64 at most"
            " (a task file is given by a path that ends in .toml)"
        )
    shipped = SHIPPED / f"{name_or_path}.toml"
    return _read(shipped) if shipped.is_file() else Task(name=name_or_path)


def _read(path: Path) -> Task:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TASK_BYTES + 1)
        if len(content) > MAX_TASK_BYTES:
            raise BadTask(f"{path}: larger than {MAX_TASK_BYTES} bytes")
        return Task.model_validate(tomllib.loads(content.decode()))
    except OSError as error:
        raise BadTask(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadTask(f"{path}: not TOML in UTF-8: {error}") from error
    except ValidationError as error:
        raise BadTask("\n".join(f"{path}: {_explained(detail)}" for detail in error.errors())) from error


def _explained(detail: Mapping[str, Any]) -> str:
    where = tuple(str(part) for part in detail["loc"])
    field = ".".join(where) or "(file)"
    if detail["type"] == "extra_forbidden":
        model = LabelPolicy if where[0] == "labels" else Task
        return f"{field}: no such field; allowed: {', '.join(model.model_fields)}"
    if detail["type"] == "missing":
        return f"{field}: missing"
    return f"{field}: {detail['msg']}, found {detail['input']!r:.60}"
