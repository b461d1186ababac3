import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.bases import (
    RECORD,
    TEACHER_BASE,
    BaseRecord,
    base_folder,
    bases_home,
    identify,
    publish_base,
    read_record,
    readable_tokens,
    weights_sha256,
    write_record,
)
from models.errors import BadBase, IntegrityError
from models.releases import Base
from models.tasks import PACKAGED_BASE


def test_the_packaged_encoder_is_found_and_others_must_exist(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    assert (base_folder(PACKAGED_BASE) / "model.safetensors").is_file()
    assert base_folder(str(tiny_base)) == tiny_base
    with pytest.raises(BadBase, match="no such encoder"):
        base_folder(str(tmp_path / "absent"))
    with pytest.raises(BadBase, match=f"not there yet; get it with: streamgauge bases fetch {TEACHER_BASE}"):
        base_folder(TEACHER_BASE)


def test_one_of_the_own_encoders_goes_by_its_name(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    shutil.copytree(tiny_base, bases_home() / "mine")
    assert base_folder("mine") == bases_home() / "mine"


def test_weights_have_a_hash(tiny_base: Path, tmp_path: Path) -> None:
    assert weights_sha256(tiny_base) == weights_sha256(tiny_base)
    assert weights_sha256(tiny_base) != weights_sha256(base_folder(PACKAGED_BASE))
    with pytest.raises(IntegrityError, match=r"model\.safetensors: cannot be read"):
        weights_sha256(tmp_path)


def test_an_encoder_with_a_record_goes_by_it(tiny_base: Path, tmp_path: Path) -> None:
    sha256 = weights_sha256(tiny_base)
    assert identify("as asked for", tiny_base) == Base(name="as asked for", sha256=sha256)
    folder = Path(shutil.copytree(tiny_base, tmp_path / "copy"))
    parent = Base(name="first", sha256="0" * 64)
    record = BaseRecord(
        name="second", sha256=sha256, source="a test", parent=parent, created_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    write_record(folder, record)
    assert read_record(folder) == record
    assert identify("as asked for", folder) == Base(name="second", sha256=sha256, parent=parent)
    (folder / RECORD).write_text("{}")
    with pytest.raises(IntegrityError, match=r"base\.json: name: Field required"):
        read_record(folder)


def test_a_base_is_published_whole_and_never_over_another(tmp_path: Path) -> None:
    made, dest = tmp_path / "made", tmp_path / "bases" / "new"
    made.mkdir()
    (made / "config.json").write_text("{}")
    assert publish_base(made, dest) == dest
    assert [path.name for path in dest.iterdir()] == ["config.json"]
    made.mkdir()
    with pytest.raises(BadBase, match="cannot become a base encoder"):
        publish_base(made, dest)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "t5"}, None),
    ],
)
def test_positions_that_padding_takes_do_not_count(config: dict[str, object], tokens: int | None) -> None:
    assert readable_tokens(config) == tokens
