"""A release's profile: what its predictions and texts were like when it was made, to compare with what comes later.

Made of the development texts, which the model did not learn from, and kept in `profile.json` beside it. Of the training
texts it keeps which token ids occur in them: others are unknown to the model, whatever its tokeniser makes of them.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import IntegrityError
from models.evaluation import Judged
from models.learning.drift import Bins, Quantity, Tally, bins_of_columns, bins_of_values
from models.learning.estimated_accuracy import expected_of_scores
from models.releases import parsed

PROFILE = "profile.json"
PROFILE_VECTORS = 200  # texts; enough to see a topic that a twentieth of the texts is about
MAX_PROFILE_BYTES = 32 << 20
MAX_TOKEN_IDS = 2_000_000
MAX_BINS = 65_536

Windows = Sequence[Sequence[int]]  # of one text: the token ids of its windows
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Profile:
    """One task of a release, as its n development texts have it.

    `known` [token ids] says which of them occur in the training texts. `expected_accuracy` is the mean score,
    `accuracy` what the labels say. `vectors` [up to PROFILE_VECTORS, width] are of some of the texts, None where nobody
    made them.
    """

    n: int
    bins: Mapping[Quantity, Bins]
    expected_accuracy: float
    accuracy: float
    known: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float32] | None = None

    def tally(self, columns: npt.ArrayLike, scores: npt.ArrayLike, windows: Sequence[Windows] | None = None) -> Tally:
        """Predictions counted: the columns of their labels [n], their scores [n], and their texts if they are there."""
        found: dict[Quantity, npt.ArrayLike] = {"label": columns, "confidence": scores}
        if windows is not None:
            found["length"], found["unknown"] = token_counts(windows), unknown_shares(windows, self.known)
        counts = {quantity: self.bins[quantity].count(values) for quantity, values in found.items()}
        return Tally(counts, expected_of_scores(scores))


def profile_of(
    judged: Judged, windows: Sequence[Windows], known_tokens: Iterable[int], vectors: Floats | None
) -> Profile:
    """The profile of a task from its judged development texts [n], their windows [n] and what it learned from."""
    ids = np.fromiter(known_tokens, np.int64)
    known = np.zeros(ids.max(initial=-1) + 1, bool)
    known[ids] = True
    bins: dict[Quantity, Bins] = {
        "label": bins_of_columns(judged.chosen, len(judged.labels)),
        "confidence": bins_of_values(judged.confidence),
        "length": bins_of_values(token_counts(windows)),
        "unknown": bins_of_values(unknown_shares(windows, known)),
    }
    return Profile(
        n=len(judged.examples),
        bins=bins,
        expected_accuracy=float(judged.confidence.mean()),
        accuracy=float(judged.correct.mean()),
        known=known,
        vectors=None if vectors is None else vectors.astype(np.float32),
    )


def token_counts(windows: Sequence[Windows]) -> npt.NDArray[np.int64]:
    """How many tokens each text has, [n]; what two windows share counts twice."""
    return np.array([sum(map(len, own)) for own in windows], np.int64)


def unknown_shares(windows: Sequence[Windows], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The share of each text's tokens that are unknown, [n]."""
    if not windows:
        return np.zeros(0)
    ids = np.fromiter((one for own in windows for window in own for one in window), np.int64)
    padded = np.append(known, False)
    unknown = ~padded[np.minimum(ids, len(known))]
    lengths = token_counts(windows)
    starts = np.cumsum(lengths) - lengths
    shares: npt.NDArray[np.float64] = np.add.reduceat(unknown.astype(np.float64), starts) / lengths
    return shares


def write_profiles(directory: Path, profiles: Mapping[str, Profile]) -> None:
    """Write `profile.json` into the directory of a release, by task.

    Raises IntegrityError for what `read_profiles` would refuse.
    """
    file = _ProfileFile(tasks={task: _Stored.of(profile) for task, profile in profiles.items()})
    content = file.model_dump_json().encode() + b"\n"
    parsed(_ProfileFile, directory / PROFILE, content, MAX_PROFILE_BYTES)
    (directory / PROFILE).write_bytes(content)


def read_profiles(directory: Path) -> dict[str, Profile]:
    """The profiles of a release by task; none without the file. Raises IntegrityError for a file that cannot be one."""
    path = directory / PROFILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PROFILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from error
    stored = parsed(_ProfileFile, path, content, MAX_PROFILE_BYTES).tasks
    return {task: one.profile() for task, one in stored.items()}


def _encoded(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _decoded(field: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"{field}: is not base64") from None


class _StoredBins(BaseModel):
    model_config = ConfigDict(extra="forbid")

    edges: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=1, max_length=MAX_BINS)
    counts: list[Annotated[int, Field(ge=0)]] = Field(min_length=2, max_length=MAX_BINS + 1)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.counts) != len(self.edges) + 1 or sorted(self.edges) != self.edges:
            raise ValueError("edges must ascend, and there must be one count more than edges")
        return self


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n: int = Field(ge=1)
    bins: dict[Quantity, _StoredBins] = Field(min_length=4)
    expected_accuracy: float = Field(ge=0, le=1)
    accuracy: float = Field(ge=0, le=1)
    token_ids: int = Field(ge=0, le=MAX_TOKEN_IDS)
    known: str = Field(description="a bit for each token id, base64")
    width: int = Field(ge=0, le=65_536)
    vectors: str = Field(description="float16, row by row, base64")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known, vectors = _decoded("known", self.known), _decoded("vectors", self.vectors)
        if len(known) != -(-self.token_ids // 8):
            raise ValueError(f"known: {len(known)} bytes for {self.token_ids} token ids")
        if len(vectors) % max(1, 2 * self.width) or bool(vectors) != bool(self.width):
            raise ValueError(f"vectors: {len(vectors)} bytes are no rows of {self.width} numbers")
        if not np.isfinite(np.frombuffer(vectors, np.float16)).all():
            raise ValueError("vectors: not all are finite")
        return self

    @classmethod
    def of(cls, profile: Profile) -> Self:
        vectors = np.zeros((0, 0)) if profile.vectors is None else profile.vectors
        return cls(
            n=profile.n,
            bins={
                name: _StoredBins(edges=list(its.edges), counts=list(its.counts)) for name, its in profile.bins.items()
            },
            expected_accuracy=profile.expected_accuracy,
            accuracy=profile.accuracy,
            token_ids=len(profile.known),
            known=_encoded(np.packbits(profile.known)),
            width=vectors.shape[1],
            vectors=_encoded(vectors.astype(np.float16)),
        )

    def profile(self) -> Profile:
        known = np.frombuffer(_decoded("known", self.known), np.uint8)
        vectors = np.frombuffer(_decoded("vectors", self.vectors), np.float16)
        return Profile(
            n=self.n,
            bins={name: Bins(tuple(its.edges), tuple(its.counts)) for name, its in self.bins.items()},
            expected_accuracy=self.expected_accuracy,
            accuracy=self.accuracy,
            known=np.unpackbits(known, count=self.token_ids).astype(bool),
            vectors=vectors.reshape(-1, self.width).astype(np.float32) if self.width else None,
        )


class _ProfileFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tasks: dict[str, _Stored] = Field(min_length=1)
