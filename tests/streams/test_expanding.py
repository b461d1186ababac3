"""Compressed batches expanded up to a bound, and never beyond."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.expanding import Corrupt, Expander, TooLarge
from tests.streams.wire_raw import CODECS, GZIP, HEADER_BYTES, LZ4, NONE, SNAPPY, ZSTD, Raw, batch_of, bomb, sealed

MIB = 1 << 20
RNG = random.Random(1)
TEXTS: list[Raw] = [(b"k%d" % one, b" ".join(RNG.choices([b"bank", b"card", b"loan"], k=40)), []) for one in range(50)]
PLAIN = batch_of(TEXTS)


def expanded(batch: bytes, limit_bytes: int = MIB) -> bytes:
    return bytes(Expander(limit_bytes).plain(memoryview(batch)))


@pytest.mark.parametrize("codec", [NONE, *CODECS])
def test_records_are_those_that_were_compressed(codec: int) -> None:
    batch = batch_of(TEXTS, codec)
    assert (len(batch) < len(PLAIN)) == (codec != NONE)
    found = expanded(batch)
    assert found[HEADER_BYTES:] == PLAIN[HEADER_BYTES:]
    stock, ours = DefaultRecordBatch(batch), DefaultRecordBatch(found)
    assert (stock.base_offset, stock.last_offset_delta, stock.max_timestamp) == (
        ours.base_offset, ours.last_offset_delta, ours.max_timestamp,
    )  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_the_bound_is_exact(codec: int) -> None:
    batch, size = batch_of(TEXTS, codec), len(PLAIN) - HEADER_BYTES
    assert expanded(batch, size)[HEADER_BYTES:] == PLAIN[HEADER_BYTES:]
    with pytest.raises(TooLarge):
        expanded(batch, size - 1)


@pytest.mark.parametrize("codec", CODECS)
def test_no_more_than_the_bound_is_ever_held(codec: int) -> None:
    batch, limit = bomb(codec, 64, 2 * MIB), 8 * MIB
    assert len(batch) < 8 * MIB
    before = peak_bytes(reset=True)
    with pytest.raises(TooLarge):
        expanded(batch, limit)
    assert peak_bytes() - before < limit + 8 * MIB  # windows of the codecs


def peak_bytes(reset: bool = False) -> int:
    """The most memory this process has had resident since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def test_stock_aiokafka_has_no_bound() -> None:
    """When this fails, aiokafka has learned to bound what it expands, and `streams/expanding.py` may go."""
    (record,) = DefaultRecordBatch(bomb(ZSTD, 1, 32 * MIB))
    assert len(record.value) == 32 * MIB


def payload(codec: int) -> bytes:
    return batch_of(TEXTS, codec)[HEADER_BYTES:]


@pytest.mark.parametrize(
    ("codec", "broken"),
    [
        (5, payload(GZIP)),  # a codec that nobody has
        (GZIP, payload(GZIP)[:-9]),
        (GZIP, payload(GZIP) + b"behind its end"),
        (LZ4, payload(LZ4)[:-5]),
        (ZSTD, payload(ZSTD)[:-5]),
        (ZSTD, b"no frame"),
        (SNAPPY, b""),
        (SNAPPY, payload(SNAPPY)[:-3]),
        (SNAPPY, payload(SNAPPY) + (-4 & 0xFFFFFFFF).to_bytes(4, "big")),  # a length that leads back
    ],
)
def test_what_no_codec_made_is_corrupt(codec: int, broken: bytes) -> None:
    with pytest.raises(Corrupt) as error:
        expanded(sealed(broken, codec, 50))
    assert str(error.value)


def test_a_length_that_lies_allocates_nothing() -> None:
    with pytest.raises(TooLarge):
        expanded(sealed(b"\xff\xff\xff\xff\x0f", SNAPPY, 1))  # four gigabytes, it says


def test_several_members_are_one_stream() -> None:
    batch = sealed(payload(GZIP) * 3, GZIP, 150)
    assert expanded(batch)[HEADER_BYTES:] == PLAIN[HEADER_BYTES:] * 3


def test_an_expander_goes_on_behind_a_bomb() -> None:
    expander = Expander(8 * MIB)
    for codec in CODECS:
        with pytest.raises(TooLarge):
            expander.plain(memoryview(bomb(codec, 5, 2 * MIB)))
        assert bytes(expander.plain(memoryview(batch_of(TEXTS, codec))))[HEADER_BYTES:] == PLAIN[HEADER_BYTES:]


@settings(deadline=None)
@given(st.sampled_from(CODECS), st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=3))
def test_whatever_the_bytes_the_end_is_one_of_three(codec: int, changes: list[tuple[int, bytes]]) -> None:
    data = payload(codec)
    for where, put in changes:
        at = where % len(data)
        data = data[:at] + put + data[at + 1 :]
    try:
        assert len(expanded(sealed(data, codec, 50))) <= HEADER_BYTES + MIB
    except (Corrupt, TooLarge):
        assert changes
