"""Who takes part: ours, its peers, and the ceiling that has no Kafka at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from streams.decisions import APP_VERSION

Role = Literal["ours", "peer", "ceiling"]


@dataclass(frozen=True)
class Contestant:
    """One system.

    Attributes:
        name: as in the results.
        program: module under `streams.bench.systems`.
        distribution: what is installed with pip.
        guarantee: what its program promises about an event when it is killed.
        slow: it gets a tenth of the events of the job without a model, which would take it minutes.
        plain: whether it is content with the embedded broker, which has no administration.
    """

    name: str
    program: str
    distribution: str
    guarantee: str
    role: Role = "peer"
    slow: bool = False
    plain: bool = True

    @property
    def version(self) -> str | None:
        """Of its library; None when that is not installed."""
        if self.role != "peer":
            return APP_VERSION
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None


CEILING = Contestant(
    "ceiling", "ceiling", "streamgauge", "none: no Kafka, texts tokenised and sorted beforehand", "ceiling"
)
CONTESTANTS = (
    Contestant(
        "streamgauge",
        "ours",
        "streamgauge",
        "at least once: offsets are committed after the outputs are acknowledged",
        "ours",
    ),
    Contestant(
        "faust",
        "faust_stock",
        "faust-streaming",
        "not quite at least once: events are acknowledged when their outputs are handed to the producer",
        slow=True,
    ),
    Contestant(
        "quix",
        "quix",
        "quixstreams",
        "at least once: a checkpoint flushes the outputs before it commits",
        plain=False,
    ),
    Contestant(
        "bytewax",
        "bytewax",
        "bytewax",
        "at least once: outputs are flushed in each epoch, offsets are kept in its recovery store (every 10 s)",
    ),
    Contestant(
        "faststream",
        "faststream",
        "faststream",
        "at least once: a batch is committed after its outputs are acknowledged",
    ),
    Contestant(
        "aiokafka",
        "aiokafka",
        "aiokafka",
        "at least once: committed by hand, after the outputs are acknowledged",
    ),
)
PEERS = tuple(one.name for one in CONTESTANTS if one.role == "peer")


def choose(peers: Sequence[str], administered: bool) -> tuple[list[Contestant], dict[str, str]]:
    """Ours and the named peers (all, when none is named) as far as they can run, and who is left out and why.

    `administered`: whether the broker answers requests for administration.

    Raises:
        ValueError: there is no peer of a name.
    """
    if unknown := [name for name in peers if name not in PEERS]:
        raise ValueError(f"--peer {unknown[0]}: no such peer; there are: {', '.join(PEERS)}")
    chosen, left_out = list[Contestant](), dict[str, str]()
    for one in CONTESTANTS:
        if one.role == "peer" and peers and one.name not in peers:
            left_out[one.name] = "not asked for"
        elif one.version is None:
            left_out[one.name] = f"{one.distribution} is not installed; pip install 'streamgauge[peers]'"
        elif not (one.plain or administered):
            left_out[one.name] = "asks the broker for the settings of topics, which the embedded one does not know"
        else:
            chosen.append(one)
    return chosen, left_out
