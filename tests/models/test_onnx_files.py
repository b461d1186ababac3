"""Where an ONNX file says its tensors are, and that none is taken from outside of a release."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper

from models import releases
from models.errors import IntegrityError
from models.onnx_files import refuse_foreign_tensors, tensor_places
from models.releases import MODEL, PACKED
from tests.models.filled import empty_graph, fill
from tests.models.hostile_graphs import ELSEWHERE, as_initializer, outside


def as_sparse_initializer(tensor: TensorProto) -> ModelProto:
    sparse = SparseTensorProto(values=tensor, dims=[4])
    return helper.make_model(helper.make_graph([], "g", [], [], sparse_initializer=[sparse]))


def in_a_node(tensor: TensorProto) -> ModelProto:
    return helper.make_model(helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "g", [], []))


def in_a_list(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Strange", [], ["c"])
    node.attribute.append(AttributeProto(name="values", type=AttributeProto.TENSORS, tensors=[tensor]))
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_a_branch(tensor: TensorProto) -> ModelProto:
    branch = in_a_node(tensor).graph
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_a_function(tensor: TensorProto) -> ModelProto:
    body = [helper.make_node("Constant", [], ["c"], value=tensor)]
    function = helper.make_function("own", "f", [], ["c"], body, [helper.make_opsetid("", 20)])
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


PLACES = [as_initializer, as_sparse_initializer, in_a_node, in_a_list, in_a_branch, in_a_function]


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_elsewhere_is_found_wherever_it_stands(place: object, tmp_path: Path) -> None:
    assert callable(place)
    path = tmp_path / MODEL
    path.write_bytes(place(outside()).SerializeToString())
    with pytest.raises(IntegrityError) as found:
        refuse_foreign_tensors(path, None)
    message = str(found.value)
    for said in (str(path), "the tensor 'weight' lies in the file '../../etc/passwd'", "in no other file"):
        assert said in message


@pytest.mark.parametrize("location", [ELSEWHERE, "/etc/passwd", "./model.onnx", "sub/model.onnx", "MODEL.onnx", ""])
def test_a_packed_graph_has_its_weights_in_the_other_and_nowhere_else(location: str, tmp_path: Path) -> None:
    path = tmp_path / PACKED
    path.write_bytes(as_initializer(outside(MODEL)).SerializeToString())
    refuse_foreign_tensors(path, MODEL)
    with pytest.raises(IntegrityError, match="in no other file"):
        refuse_foreign_tensors(path, None)
    path.write_bytes(as_initializer(outside(location)).SerializeToString())
    with pytest.raises(IntegrityError, match=r"those of this graph may lie in model\.onnx alone"):
        refuse_foreign_tensors(path, MODEL)


def test_of_two_paths_of_one_tensor_neither_may_lead_out(tmp_path: Path) -> None:
    tensor = outside(MODEL)
    tensor.external_data.add(key="location", value=ELSEWHERE)
    (tmp_path / PACKED).write_bytes(as_initializer(tensor).SerializeToString())
    with pytest.raises(IntegrityError, match="passwd"):
        refuse_foreign_tensors(tmp_path / PACKED, MODEL)
    # An entry whose value is written twice: which of them counts is the reader's choice.
    entry = b"\x0a\x08location" + b"\x12\x0amodel.onnx" + b"\x12\x10../../etc/passwd"
    written = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(written)]) + written
    (tmp_path / PACKED).write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    assert onnx.load(tmp_path / PACKED, load_external_data=False).graph.initializer[0].external_data
    with pytest.raises(IntegrityError, match="passwd"):
        refuse_foreign_tensors(tmp_path / PACKED, MODEL)


def test_tensors_are_where_the_onnx_package_sees_them(joint_release: Path) -> None:
    content = (joint_release / MODEL).read_bytes()
    graph = onnx.load_from_string(content).graph
    found = {tensor.name: tensor for tensor in tensor_places(content)}
    assert len(found) >= len(graph.initializer) > 10
    for tensor in graph.initializer:
        raw = found[tensor.name].raw
        assert raw is not None
        assert content[raw.start : raw.stop] == tensor.raw_data
        assert found[tensor.name].locations == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"no graph", b"\x3a\x05ab", b"\x00\x01", b"\x3b\x00", b"\x80" * 20, b"\x82\x80\x80\x80\x10\x00", b"\x08"],
)
def test_what_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.onnx: no ONNX graph: "):
        refuse_foreign_tensors(tmp_path / MODEL, None)


@given(st.binary(max_size=60), st.integers(0, 400))
@settings(deadline=None)
def test_whatever_is_in_a_file_it_is_read_or_refused(junk: bytes, at: int) -> None:
    content = as_initializer(outside()).SerializeToString()
    damaged = content[:at] + junk + content[at + len(junk) :]
    try:
        places = list(tensor_places(damaged))
    except ValueError:
        return
    assert all(len(place.name) <= 4 * len(damaged) for place in places)


def test_a_release_that_points_outside_does_not_verify(tmp_path: Path) -> None:
    hostile = as_initializer(outside()).SerializeToString()
    manifest = fill(tmp_path)
    releases.verify(tmp_path)
    for name in (MODEL, PACKED):
        (tmp_path / MODEL).write_bytes(empty_graph(b"graph"))
        (tmp_path / name).write_bytes(hostile)
        files = manifest.files | {name: releases.file_sha256(tmp_path / name)}  # whoever made it hashed it, too
        releases.write_manifest(tmp_path, manifest.model_copy(update={"files": files}))
        says = rf"{name}: the tensor 'weight' lies in the file '\.\./\.\./etc/passwd'"
        with pytest.raises(IntegrityError, match=says):
            releases.verify(tmp_path)
