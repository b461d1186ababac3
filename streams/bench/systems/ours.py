"""Streamgauge: its real worker, with a configuration made for the job, in this very process.

One source, one task that decides nothing, so that an event gives one prediction, as with the peers. Every other setting
is as shipped. Without a model it is the same worker with a model that does nothing (`null_worker`).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from streams.bench.job import Job
from streams.bench.running import SIDE_TOPICS

_WORKERS = {"stream": "streams.bench.null_worker", "model": "streams.worker"}


def configuration(job: Job, policy: Path) -> str:
    """The settings file (TOML); `policy` is the task file."""
    topics = {what: f"{job.group}-{what}" for what in SIDE_TOPICS}
    topics["predictions"] = job.output_topic
    sections: dict[str, dict[str, object]] = {
        "broker": {"bootstrap": job.bootstrap, "group": job.group},
        "topics": dict(topics),
        "models": {"runtime": job.runtime},
        "models.tasks": {job.task: str(policy)},
        "models.releases": {job.task: job.release} if job.release else {},
        "metrics": {"port": job.metrics_port},
        "sources.bench": {
            "topic": job.input_topic,
            "kind": "chat",
            "text": ["text"],
            "id": "id",
            "time": "ts",
            "key": "conversation",
            "tasks": [job.task],
        },
        **{f"sources.{name}": {"enabled": False} for name in ("news", "chat", "transactions")},
    }
    # A JSON string, number, truth value or list of strings is written in the same way in TOML.
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
        for name, section in sections.items()
    )


def main(job: Job) -> None:
    """Become the worker."""
    directory = Path(job.directory)
    policy, config = directory / "policy.toml", directory / "streamgauge.toml"
    policy.write_text(f"name = {json.dumps(job.task)}\nreview_below = 0\n", encoding="utf-8")
    config.write_text(configuration(job, policy), encoding="utf-8")
    os.environ["STREAMGAUGE_CONFIG"] = str(config)
    os.execv(sys.executable, [sys.executable, "-m", _WORKERS[job.kind]])  # noqa: S606  our own arguments


if __name__ == "__main__":
    main(Job.from_command_line())
