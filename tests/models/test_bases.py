from pathlib import Path

import pytest

from models.bases import base_folder, weights_sha256
from models.errors import BadBase, IntegrityError
from models.tasks import PACKAGED_BASE


def test_the_packaged_encoder_is_found_and_others_must_exist(tiny_base: Path, tmp_path: Path) -> None:
    assert (base_folder(PACKAGED_BASE) / "model.safetensors").is_file()
    assert base_folder(str(tiny_base)) == tiny_base
    with pytest.raises(BadBase, match="no such encoder"):
        base_folder(str(tmp_path / "absent"))


def test_weights_have_a_hash(tiny_base: Path, tmp_path: Path) -> None:
    assert weights_sha256(tiny_base) == weights_sha256(tiny_base)
    assert weights_sha256(tiny_base) != weights_sha256(base_folder(PACKAGED_BASE))
    with pytest.raises(IntegrityError, match=r"model\.safetensors: cannot be read"):
        weights_sha256(tmp_path)
