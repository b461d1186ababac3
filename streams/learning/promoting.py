"""Who serves next, as records of the releases topic: promoted, challenging, rolled back. Commands and jobs call these.

A release is verified, loaded and run here first, so that no worker is asked for what is broken.
"""

from __future__ import annotations

import getpass
import logging
import platform
import time
from typing import Literal

from models.errors import ModelError, ReleaseNotFound
from models.probation import tried
from models.references import CHALLENGER, CHAMPION, is_reference, parse_reference
from models.registry import Registry
from models.releases import MANIFEST, file_sha256, find_release, verify
from streams.events import Release, ReleaseRef, iso
from streams.intake import seconds_of
from streams.learning.releases_topic import Key, Standing, read_standing, write
from streams.settings import Settings

MOST_WHY_CHARS = 1000

log = logging.getLogger(__name__)


def promote(
    settings: Settings, task: str, ref: str | None = None, by: str | None = None, why: str | None = None
) -> Release:
    """Let a release serve a task in every worker; None is the challenger, which then is one no more.

    For `rollout.watch_s` it is watched over: see `guard`. Meanwhile the champion before goes on scoring a share of the
    events beside it, unless another challenger does.

    Raises:
        ModelError: there is no such release, or it cannot serve.
        BrokerUnavailable, AccessRefused, DeliveryFailed: the topic cannot be read or written.
    """
    standing = read_standing(settings)
    challenger = None if is_former(standing, task) else standing.get((task, "challenger"))
    meant = challenger if ref is None else _tried(settings, task, ref)
    if meant is None:
        raise ReleaseNotFound(f"{task}: has no challenger; write: streamgauge releases promote {task} REF")
    record = _champion(settings, task, meant, standing, by, why)
    changes: dict[Key, Release | None] = {(task, "champion"): record}
    if challenger is None or challenger["sha256"] == record["sha256"]:
        changes[task, "challenger"] = None
    chosen, previous = settings.rollout, record["previous"]
    if previous is not None and chosen.watch_s:
        record["watched_until"] = iso(seconds_of(record["promoted_at"], "promoted_at") + chosen.watch_s)
        if chosen.watch_share and changes.get((task, "challenger"), challenger) is None:
            former = _record(previous, task, by, f"served before {record['release']}, which it is compared with")
            changes[task, "challenger"] = former | {
                "role": "challenger", "mode": "shadow", "share": chosen.watch_share
            }  # fmt: skip
    write(settings, changes)
    _let_alias_follow(record, CHAMPION)
    return record


def is_former(standing: Standing, task: str) -> bool:
    """Whether a task's challenger is its champion before, that only goes on while the promoted one is watched over."""
    champion, challenger = standing.get((task, "champion")), standing.get((task, "challenger"))
    if champion is None or challenger is None or champion["previous"] is None:
        return False
    return "watched_until" in champion and champion["previous"]["sha256"] == challenger["sha256"]


def challenge(
    settings: Settings, task: str, ref: str, mode: Literal["shadow", "canary"], share: float, by: str | None = None
) -> Release:
    """Let a release score a share of the keys beside the champion (shadow), or in its place (canary).

    Raises:
        ModelError, BrokerUnavailable, AccessRefused, DeliveryFailed: as `promote`.
    """
    record = _record(_tried(settings, task, ref), task, by)
    record |= {"role": "challenger", "mode": mode, "share": share}
    write(settings, {(task, "challenger"): record})
    _let_alias_follow(record, CHALLENGER)
    return record


def roll_back(settings: Settings, task: str, by: str | None = None) -> Release:
    """Take the last step back: withdraw the challenger, or where there is none let the champion before serve again.

    The champion before, where it is the challenger while the new one is watched over, is no step of its own. Returns
    the record of the challenger that is one no more, or of the champion that serves again.

    Raises:
        ReleaseNotFound: nothing was promoted before.
        BrokerUnavailable, AccessRefused, DeliveryFailed: as `promote`.
    """
    standing = read_standing(settings)
    if (task, "challenger") in standing and not is_former(standing, task):
        return withdraw(settings, standing, task)
    return take_back(settings, standing, task, by)


def withdraw(settings: Settings, standing: Standing, task: str) -> Release:
    """Let a task have no challenger any more; returns what it was. Raises BrokerUnavailable and AccessRefused."""
    write(settings, {(task, "challenger"): None})
    return standing[task, "challenger"]


def take_back(
    settings: Settings, standing: Standing, task: str, by: str | None = None, why: str | None = None
) -> Release:
    """Let the champion before serve again, and watch over nothing. Raises as `roll_back`."""
    champion = standing.get((task, "champion"))
    if champion is None or (previous := champion["previous"]) is None:
        raise ReleaseNotFound(
            f"{task}: nothing was promoted before; name the release: streamgauge releases promote {task} REF"
        )
    record = _champion(settings, task, previous, standing, by, why)
    changes: dict[Key, Release | None] = {(task, "champion"): record}
    if is_former(standing, task):
        changes[task, "challenger"] = None
    write(settings, changes)
    _let_alias_follow(record, CHAMPION)
    return record


def _tried(settings: Settings, task: str, ref: str) -> ReleaseRef:
    """What was named, so that every worker finds the same: an alias becomes the version that it means now."""
    if is_reference(ref):
        ref = str(Registry().resolve(parse_reference(ref)).reference)
    found = _found(task, ref)
    tried(find_release(task, ref), settings.models.device, settings.models.runtime, settings.models.threads)
    return found


def _found(task: str, ref: str | None) -> ReleaseRef:
    """A release as workers will find it: by its version or id, or where it lies; verified."""
    directory = find_release(task, ref).resolve()
    manifest = verify(directory)
    lasting = ref is not None and (is_reference(ref) or ref == manifest.release)
    return {
        "reference": ref if ref is not None and lasting else str(directory),
        "release": manifest.release,
        "sha256": file_sha256(directory / MANIFEST),
    }


def _record(meant: ReleaseRef, task: str, by: str | None, why: str | None = None) -> Release:
    record: Release = {
        "task": task,
        "role": "champion",
        "mode": "serve",
        "share": 1.0,
        "reference": meant["reference"],
        "release": meant["release"],
        "sha256": meant["sha256"],
        "promoted_at": iso(time.time()),
        "promoted_by": by or f"{getpass.getuser()}@{platform.node()}",
        "previous": None,
    }
    if why is not None:
        record["why"] = why[:MOST_WHY_CHARS]
    return record


def _champion(
    settings: Settings, task: str, meant: ReleaseRef, standing: Standing, by: str | None, why: str | None
) -> Release:
    record = _record(meant, task, by, why)
    record["previous"] = _previous(settings, task, meant, standing)
    return record


def _previous(settings: Settings, task: str, meant: ReleaseRef, standing: Standing) -> ReleaseRef | None:
    """What serves now; at the first promotion that is what the settings name, as far as this machine can tell."""
    champion = standing.get((task, "champion"))
    if champion is None:
        try:
            found = _found(task, settings.models.releases.get(task))
        except ModelError as error:
            log.warning("%s: no rollback from this promotion: what serves now is not found here (%s)", task, error)
            return None
        return None if found["sha256"] == meant["sha256"] else found
    if champion["sha256"] == meant["sha256"]:
        return champion["previous"]
    return {"reference": champion["reference"], "release": champion["release"], "sha256": champion["sha256"]}


def _let_alias_follow(record: Release, alias: str) -> None:
    """The registry's alias names what has the role; it is only a name, so it is moved last."""
    if is_reference(record["reference"]):
        registry = Registry()
        registry.set_alias(registry.resolve(parse_reference(record["reference"])), alias)
