"""The whole learning loop on real Kafka, as a story, with the commands that a user would give.

    python -m tests.learning_story --json
    python -m tests.learning_story --data DIR --json      # on a real set, with the packaged encoder

The last line is one JSON object; the exit code is 0 only if nothing was lost, the worse candidate was refused, and the
rollback worked. Without --json the story is told in plain words alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from streams.broker import BrokerError, KafkaBroker, kafka_unavailable
from tests.learning_story.telling import told


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.learning_story", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="a folder with {clinc150,hwu64}/{train,dev}.jsonl")
    parser.add_argument("--directory", type=Path, default=None, help="kept; else a temporary one, kept on failure")
    parser.add_argument("--window-s", type=float, default=10.0, help="of latency, before a swap and with it")
    parser.add_argument("--json", action="store_true", help="print one JSON object last on standard output")
    return parser.parse_args()


def main() -> int:
    """Tell the story; returns the exit code."""
    chosen = options()
    console = Console(stderr=chosen.json)
    if missing := kafka_unavailable():
        print(f"error: the story needs Apache Kafka: {missing}", file=sys.stderr)
        return 2
    directory = (chosen.directory or Path(tempfile.mkdtemp(prefix="story-"))).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # those of the story are enough
    try:
        with KafkaBroker() as broker:
            found = told(directory, broker.bootstrap, chosen.data, chosen.window_s, console)
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, TimeoutError) as error:  # a chapter did not come to its end
        print(f"error: {error}\nlogs of the commands and the worker: {directory}", file=sys.stderr)
        return 1
    good = not found["lost"] and found["worse_candidate_refused"] and found["rollback_ok"]
    if good and chosen.directory is None:
        shutil.rmtree(directory)
    else:
        console.print(f"logs of the commands and the worker: {directory}", highlight=False)
    if chosen.json:
        print(json.dumps(found))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
