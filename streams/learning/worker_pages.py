"""What the metrics of running workers say of the releases they should serve: refused, or nothing can run them."""

from __future__ import annotations

import http.client
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

MOST_BYTES = 4 << 20  # of a page: a worker's has some ten thousand
_ANSWER_S = 5.0

log = logging.getLogger(__name__)


def troubles(workers: Sequence[str]) -> dict[str, str]:
    """By task, what the workers at these host:port say is wrong with its champion.

    One that does not answer says nothing: whether workers are up is for Prometheus to watch.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for worker in workers:
        for task, what in _of_page(_samples(worker)):
            found[task].append(f"{worker} {what}")
    return {task: "; ".join(lines) for task, lines in found.items()}


def _of_page(samples: Iterable[Sample]) -> Iterator[tuple[str, str]]:
    for sample in samples:
        labels = sample.labels
        if sample.value != 1:
            continue
        if sample.name == "streamgauge_release_refused" and labels["role"] == "champion":
            yield labels["task"], "refuses it: it is broken there, see its log"
        elif sample.name == "streamgauge_model_state" and labels["state"] == "holding":
            for task in labels["task"].split("+"):  # those that a model serves together
                yield task, "holds its texts: nothing can run the model"


def _samples(worker: str) -> list[Sample]:
    connection = http.client.HTTPConnection(worker, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read(MOST_BYTES).decode("utf-8", "replace")
        return [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    except (OSError, http.client.HTTPException, ValueError) as error:
        log.info("no metrics of %s: %s", worker, error)
        return []
    finally:
        connection.close()
