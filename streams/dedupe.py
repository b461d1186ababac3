"""For consumers of the output topics: has this output come before?

A worker that ended before it had committed its offsets processes what was uncommitted again, and repeats its outputs
with the same ids. How far back a repetition reaches, counted in offsets of the source partition, is therefore bounded
by the uncommitted input: `batching.max_slices_in_flight` x `batching.max_slice_events`, and what was finished since the
last commit. How many other outputs lie in between has no bound, as the other partitions go on meanwhile; so what is
remembered is counted by source offsets, too.

    seen = Deduplicator()
    for message in consumer:
        output = json.loads(message.value())
        if not seen.before(output):
            act(output)
            seen.remember(output)
        # commit as usual
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

WINDOW = 65_536
MAX_PARTITIONS = 4096


class _Recent:
    """The ids of a source partition's last offsets, in two generations of `window` offsets each."""

    def __init__(self) -> None:
        self.generation = -1
        self.ids: tuple[set[str], set[str]] = (set(), set())  # of this generation, and of the one before

    def before(self, generation: int, output_id: str) -> bool:
        back = self.generation - generation
        return 0 <= back <= 1 and output_id in self.ids[back]

    def remember(self, generation: int, output_id: str) -> None:
        if generation > self.generation:
            self.ids = (set(), self.ids[0] if generation == self.generation + 1 else set())
            self.generation = generation
        if (back := self.generation - generation) <= 1:
            self.ids[back].add(output_id)


class Deduplicator:
    """Remembers the ids of the outputs of each source partition's last offsets, at least `window` of them.

    It never takes an output for a repetition that is none. What it has forgotten, or what came before this process
    started, it takes for new: after a start, first `remember` (without acting) what lies behind the committed offset.
    Memory: up to 2 x `window` x outputs an event, about 150 bytes each, for each of at most 4,096 source partitions; of
    more, those not heard of for the longest time are forgotten. Use one for each output topic, from one thread.

    Args:
        window: source offsets; more than a worker can have uncommitted.
    """

    def __init__(self, window: int = WINDOW) -> None:
        if window < 1:
            raise ValueError(f"window is {window}; it must be 1 or more source offsets")
        self._window = window
        self._partitions: OrderedDict[tuple[str, int], _Recent] = OrderedDict()

    def before(self, output: Mapping[str, Any]) -> bool:
        """Whether an output with this id was remembered."""
        partition, generation, output_id = self._place(output)
        recent = self._partitions.get(partition)
        return recent is not None and recent.before(generation, output_id)

    def remember(self, output: Mapping[str, Any]) -> None:
        """Call it once the output is dealt with: one remembered too early is lost when dealing with it fails."""
        partition, generation, output_id = self._place(output)
        self._partitions.setdefault(partition, _Recent()).remember(generation, output_id)
        self._partitions.move_to_end(partition)
        if len(self._partitions) > MAX_PARTITIONS:
            self._partitions.popitem(last=False)

    def _place(self, output: Mapping[str, Any]) -> tuple[tuple[str, int], int, str]:
        source = output["source"]
        return (source["topic"], source["partition"]), source["offset"] // self._window, output["id"]
