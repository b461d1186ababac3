"""The knobs of training, each with its range: set by a recipe, the task file, or whoever trains."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.augmentation import AugmentSettings
from models.errors import BadKnob

Method = Literal["full", "lora", "head"]
Shape = Literal["linear", "cosine", "constant"]
LongTexts = Literal["first", "random", "all"]
HeadStart = Literal["random", "centroids"]
Precision = Literal["auto", "float32", "bfloat16"]

PRESETS: dict[Method, tuple[int, float]] = {  # epochs, learning rate of the encoder (full, lora) or head
    "full": (5, 2e-4),
    "lora": (8, 1e-3),
    "head": (60, 5e-3),
}


class TrainSettings(BaseModel):
    """How to train; None leaves a knob to the method's own default in `PRESETS`, or to the task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = Field(default="full", description="all weights learn, or low-rank adapters, or the head alone")
    base: str | None = Field(default=None, description="instead of the task's base encoder")
    start: str | None = Field(
        default=None, min_length=1, description="a release to go on from, its heads included, instead of a base encoder"
    )
    max_tokens: int | None = Field(default=None, ge=4, le=8192, description="instead of the task's")
    long_texts: LongTexts = Field(
        default="first", description="of a text's windows: learn the first, a random one each epoch, or all"
    )

    epochs: int | None = Field(default=None, ge=1, le=1000)
    patience: int | None = Field(default=None, ge=1, description="stop after so many epochs without a better macro-F1")
    batch_texts: int = Field(default=32, ge=1, le=4096)
    accumulate: int = Field(default=1, ge=1, le=1024, description="batches whose gradients make one step")
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    head_learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1, description="each layer learns so much slower than the next")
    schedule: Shape = "linear"
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the steps the learning rate rises in")
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    head_start: HeadStart = Field(
        default="random",
        description="centroids: from the mean vector of each label's texts; with start, of labels new to it",
    )
    learn_embeddings: bool = Field(default=False, description="full only; twice the time for a step on a CPU")
    lora_rank: int = Field(default=16, ge=1, le=512)

    augment: AugmentSettings | None = Field(default=None, description="also learn from variants of the examples")

    learn_names: bool = Field(default=False, description="each label's name, as words, is one more text of it")
    vary_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of the texts, in every epoch others, with typing errors or something at the end that says nothing;"
        " not with method head nor long_texts all, which have the same windows in every epoch",
    )

    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    class_weight_power: float = Field(default=0.5, ge=0, le=1, description="0: none; 1: inverse of the frequency")
    focal_gamma: float = Field(default=0.0, ge=0, le=10, description="0: plain cross-entropy")
    fgm_epsilon: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="adversarial step, as a share of a text's embedding; 0: none; twice the time",
    )
    agreement_weight: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="what two readings of a text, dropout apart, are to agree by; 0: one reading; twice the time",
    )
    average_decay: float = Field(
        default=0.0, ge=0, lt=1, description="kept are the weights' running mean, of about 1 / (1 - x) steps; 0: none"
    )
    distill_weight: float = Field(
        default=0.5, ge=0, le=1, description="of the teacher's say where there is a label too"
    )
    distill_temperature: float = Field(default=2.0, gt=0, le=20)

    contrast_epochs: int = Field(
        default=0, ge=0, le=1000, description="before the others: texts of a label drawn together"
    )
    contrast_learning_rate: float = Field(default=2e-4, gt=0, lt=1)
    contrast_temperature: float = Field(default=0.1, gt=0, le=1)

    precision: Precision = Field(default="auto", description="auto: bfloat16 where the hardware multiplies in it")
    seed: int = Field(default=7, ge=0, lt=2**31)
    split_seed: int = Field(default=7, description="which examples are held out where no development data are given")
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _knobs_that_agree(self) -> "TrainSettings":
        if self.start and self.base:
            raise ValueError("start: a release brings its own encoder; leave base out")
        if self.method == "head" and self.fgm_epsilon:
            raise ValueError("fgm_epsilon: with method head no gradient reaches the embeddings; choose full or lora")
        if self.method != "full" and self.learn_embeddings:
            raise ValueError(f"learn_embeddings: with method {self.method} they do not learn; choose full")
        return self

    @property
    def preset(self) -> tuple[int, float]:
        """Epochs and learning rate, the method's own where none are set."""
        epochs, learning_rate = PRESETS[self.method]
        return self.epochs or epochs, self.learning_rate or learning_rate

    @property
    def varies(self) -> bool:
        """Whether an epoch reads other texts than the one before."""
        return self.vary_share > 0 and self.method != "head" and self.long_texts != "all"

    @property
    def rate_of_heads(self) -> float:
        """The learning rate of the classification heads."""
        _, learning_rate = self.preset
        return learning_rate if self.method == "head" else max(self.head_learning_rate, learning_rate)


def settings_of(knobs: Mapping[str, Any], where: str) -> TrainSettings:
    """Settings from knobs by name. Raises BadKnob naming `where` they were set, the knob and what it may be."""
    try:
        return TrainSettings.model_validate(dict(knobs))
    except ValidationError as error:
        detail = error.errors()[0]
        knob = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            raise BadKnob(
                f"{where}: {knob}: no such knob; there are: {', '.join(TrainSettings.model_fields)}"
            ) from error
        found = f", found {detail['input']!r:.60}" if knob else ""
        raise BadKnob(f"{where}: {knob + ': ' if knob else ''}{detail['msg']}{found}") from error
