"""Releases in the MLflow model registry: versions that never change, and the aliases that move between them.

A task is a registered model, a release a version of it (of each of its tasks). Its files are artefacts of one run, and
the version carries the SHA-256 of the release's manifest, which holds that of every file: so whatever comes back out of
an artefact store is either the release that was registered, or refused. Nothing of it is ever executed or unpickled.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import releases
from models.errors import IntegrityError, ReleaseExists, ReleaseNotFound
from models.references import Reference, checked_alias
from models.releases import MANIFEST, Manifest, file_sha256
from models.tasks import NAME
from models.tracking import chosen_address, experiment_id, open_client, plain_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.entities.model_registry import ModelVersion

FOLDER = "release"  # of a run's artefacts
SUFFIXES = (".onnx", ".json", ".md")  # formats that hold data; a pickle or a script has no place in a release
MAX_FILES = 32
MAX_RELEASE_BYTES = 4 << 30

_TAG = "streamgauge."
_PAGE = 200


@dataclass(frozen=True)
class Version:
    """A release as the registry knows it."""

    task: str
    number: int
    release: str
    sha256: str  # of its manifest
    total_bytes: int
    macro_f1: float | None  # on development examples, when it was made
    parent: str | None
    aliases: tuple[str, ...]
    registered_at: datetime
    run_id: str

    @property
    def reference(self) -> Reference:
        """Its lasting name."""
        return Reference(self.task, None, self.number)


class Registry:
    """The model registry at an address; see `tracking`. Every method raises RegistryUnavailable and RegistryRefused."""

    def __init__(self, address: str | None = None) -> None:
        self.address = chosen_address(address)
        self._client = open_client(self.address)

    def tasks(self) -> list[str]:
        """The tasks with registered releases, sorted; models that others keep in the same registry are passed over."""
        with plain_errors(self.address):
            found = self._pages(self._client.search_registered_models)
            return sorted({model.name for model in found if NAME.fullmatch(model.name) and _ours(model.tags)})

    def versions(self, task: str) -> list[Version]:
        """A task's releases, oldest first; empty for a task it does not know."""
        try:
            with plain_errors(self.address):
                aliases = self._client.get_registered_model(task).aliases
        except ReleaseNotFound:
            return []
        with plain_errors(self.address):
            found = list(self._pages(self._client.search_model_versions, filter_string=f"name = '{task}'"))
        ours = [one for one in found if _ours(one.tags)]
        return sorted((_version(one, aliases) for one in ours), key=lambda version: version.number)

    def resolve(self, reference: Reference) -> Version:
        """The version that a reference means now. Raises ReleaseNotFound saying what there is."""
        known = self.versions(reference.task)
        for version in known:
            if version.number == reference.version or reference.alias in version.aliases:
                return version
        there = ", ".join(f"{one.task}/{one.number}{''.join(f' @{alias}' for alias in one.aliases)}" for one in known)
        raise ReleaseNotFound(f"{reference}: not in the registry, which has of {reference.task}: {there or 'nothing'}")

    def register(self, directory: Path) -> list[Version]:
        """Make a release a new version of each of its tasks; one that is registered already stays as it is.

        Raises IntegrityError for a release that is not whole or holds what a release must not, ReleaseExists when
        another one was registered by its id.
        """
        manifest = releases.verify(directory)
        refuse_strange_files(manifest, str(directory))
        sha256 = file_sha256(directory / MANIFEST)
        present = {task: self._registered(task, manifest, sha256) for task in manifest.tasks}
        missing = [task for task, version in present.items() if version is None]
        if missing:
            with plain_errors(self.address):
                self._upload(directory, manifest, sha256, missing)
        return [version for task in manifest.tasks if (version := self._registered(task, manifest, sha256)) is not None]

    def set_alias(self, version: Version, alias: str) -> None:
        """Let an alias name this version, and no other of its task. Raises BadReference."""
        with plain_errors(self.address):
            self._client.set_registered_model_alias(version.task, checked_alias(alias), str(version.number))

    def remove_alias(self, task: str, alias: str) -> None:
        """Let an alias name nothing. Raises ReleaseNotFound."""
        with plain_errors(self.address):
            self._client.delete_registered_model_alias(task, checked_alias(alias))

    def download(self, version: Version, name: str, to: Path) -> None:
        """Write one file of a release to the path `to`. Raises ReleaseNotFound when the artefact store has none."""
        with plain_errors(self.address):
            from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

            source = self._client.get_model_version_download_uri(version.task, str(version.number))
            store = get_artifact_repository(source, tracking_uri=self.address, registry_uri=self.address)
            # Of what an artefact store can do the one thing that writes where we say: its public way in asks the store
            # what there is and follows the answer, also into folders.
            store._download_file(name, str(to))

    def _registered(self, task: str, manifest: Manifest, sha256: str) -> Version | None:
        for version in self.versions(task):
            if version.sha256 == sha256:
                return version
            if version.release == manifest.release:
                raise ReleaseExists(
                    f"{version.reference} is another release of the id {manifest.release}: a registered release never"
                    " changes; train it anew for an id of its own"
                )
        return None

    def _upload(self, directory: Path, manifest: Manifest, sha256: str, tasks: list[str]) -> None:
        """Files first, versions last: what can be seen is whole."""
        run = self._client.create_run(
            experiment_id(self._client, self.address), run_name=manifest.release, tags={f"{_TAG}sha256": sha256}
        )
        run_id, state = run.info.run_id, "FAILED"
        try:
            self._client.log_batch(run_id, metrics=list(_metrics(manifest)), params=_params(manifest))
            sizes = 0
            for name in (*manifest.files, MANIFEST):
                sizes += (directory / name).stat().st_size
                self._client.log_artifact(run_id, str(directory / name), FOLDER)
            for task in tasks:
                self._ensure_model(task)
                self._client.create_model_version(
                    task,
                    f"{run.info.artifact_uri}/{FOLDER}",
                    run_id,
                    tags=_tags(manifest, task, sha256, sizes),
                    description=f"{manifest.release}; its model card is among the artefacts ({FOLDER}/card.md)",
                )
            state = "FINISHED"
        finally:
            self._client.set_terminated(run_id, state)

    def _ensure_model(self, task: str) -> None:
        if not any(model.name == task for model in self._pages(self._client.search_registered_models)):
            self._client.create_registered_model(task)
        self._client.set_registered_model_tag(task, f"{_TAG}task", task)

    def _pages(self, search: Any, **wanted: str) -> Iterator[Any]:
        token = None
        while True:
            page = search(max_results=_PAGE, page_token=token, **wanted)
            yield from page
            token = page.token
            if not token:
                return


def refuse_strange_files(manifest: Manifest, where: str) -> None:
    """Raises IntegrityError when a manifest lists too many files, or one of a kind that no release has."""
    if len(manifest.files) > MAX_FILES:
        raise IntegrityError(f"{where}: the manifest lists {len(manifest.files)} files, allowed {MAX_FILES}")
    for name in manifest.files:
        if not name.endswith(SUFFIXES):
            raise IntegrityError(f"{where}: {name}: no file of a release; those end in {', '.join(SUFFIXES)}")


def _ours(tags: Mapping[str, str]) -> bool:
    return any(name.startswith(_TAG) for name in tags)


def _version(found: "ModelVersion", aliases: Mapping[str, Any]) -> Version:
    tags, number = found.tags, int(found.version)
    try:
        return Version(
            task=found.name,
            number=number,
            release=tags[f"{_TAG}release"],
            sha256=tags[f"{_TAG}sha256"],
            total_bytes=int(tags[f"{_TAG}bytes"]),
            macro_f1=float(tags[f"{_TAG}macro_f1"]) if f"{_TAG}macro_f1" in tags else None,
            parent=tags.get(f"{_TAG}parent"),
            aliases=tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(number))),
            registered_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            run_id=found.run_id or "",
        )
    except (KeyError, ValueError) as error:
        raise IntegrityError(
            f"models:/{found.name}/{number}: its tags were changed ({error}); delete the version and register it again"
        ) from None


def _tags(manifest: Manifest, task: str, sha256: str, total_bytes: int) -> dict[str, str]:
    dev = manifest.head(task).metrics.get("dev", {})
    tags = {"release": manifest.release, "sha256": sha256, "bytes": str(total_bytes)}
    tags["data_sha256"] = manifest.head(task).data.sha256
    if "macro_f1" in dev:
        tags["macro_f1"] = f"{dev['macro_f1']:.6f}"
    if manifest.code is not None:
        tags |= {"code_version": manifest.code.version, "code_sha256": manifest.code.sha256}
    if manifest.parent is not None:
        tags |= {"parent": manifest.parent.release, "parent_sha256": manifest.parent.sha256}
    return {f"{_TAG}{name}": value for name, value in tags.items()}


def _params(manifest: Manifest) -> list[Any]:
    from mlflow.entities import Param

    heads = {f"data.{head.task}": f"{head.data.name}, {head.data.rows} rows" for head in manifest.heads}
    made = {"base": manifest.base.name, "method": manifest.method, "recipe": manifest.recipe, "seed": manifest.seed}
    return [Param(name, str(value)[:250]) for name, value in (made | heads).items()]


def _metrics(manifest: Manifest) -> "Iterator[Metric]":
    from mlflow.entities import Metric

    at_ms = int(manifest.created_at.timestamp() * 1000)
    for head in manifest.heads:
        dev = head.metrics.get("dev", {})
        for name in ("accuracy", "macro_f1", "ece"):
            if isinstance(dev.get(name), float):
                yield Metric(f"dev/{head.task}/{name}", dev[name], at_ms, 0)
