"""ONNX files whose weights are said to be in files that a release must not make anybody read."""

from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import set_external_data

ELSEWHERE = "../../etc/passwd"


def outside(location: str = ELSEWHERE) -> TensorProto:
    """A tensor that lies in another file."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"0" * 16)
    set_external_data(tensor, location, 0, 16)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def as_initializer(tensor: TensorProto) -> ModelProto:
    """A model whose only weight it is."""
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
