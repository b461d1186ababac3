import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.softmax import softmax


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_softmax_is_a_distribution_and_keeps_the_order(logits: np.ndarray) -> None:
    scores = softmax(logits)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    chosen = logits.argmax(axis=1)
    np.testing.assert_array_equal(scores[range(4), chosen], scores.max(axis=1))


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1.0, 3.0]]))), [[0.25, 0.75]], rtol=1e-6)
