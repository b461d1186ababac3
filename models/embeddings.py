"""Text vectors of a release, what its graph computes just before the layer that makes logits of them, and distances.

For comparison, not for serving: no release has them as an output, and the graph is changed in memory to give them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.classifier import Classifier
from models.datasets import Example
from models.errors import TRAIN_EXTRA, IntegrityError, MissingExtra
from models.evaluation import Judged, in_scope, target_indices
from models.out_of_scope import OUTSIDE_LABELS, Separation, mahalanobis, nearest_neighbour, separation
from models.padding import length_sorted_batches, padded
from models.releases import MODEL
from models.runtimes.measuring import BATCH_TOKENS
from models.runtimes.onnx import INPUTS, OUTPUT, session_options

LINEAR = ("Gemm", "MatMul")
PASSED_OVER = ("Add", "Cast", "Identity", "Mul")  # may stand between the last product and the logits
Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def distances(
    directory: Path, classifier: Classifier, judged: Judged, train: Sequence[Example], progress: Progress
) -> dict[str, Separation]:
    """How well distances to the training texts tell what is out of scope; nobody is trained here.

    `judged` must hold texts of both kinds. Raises as `text_vectors` does, and BadDataset for a training label that the
    release does not know.
    """
    known = [one for one in train if one.label not in OUTSIDE_LABELS]
    targets = target_indices(classifier.labels, known)
    inside = in_scope(classifier.head, judged.targets)
    texts = [one.text for one in (*known, *judged.examples, *judged.strangers)]
    vectors = text_vectors(directory, classifier, texts, progress)
    trained, held = vectors[: len(known)], vectors[len(known) :]
    found = {}
    for name, familiar in (
        ("mahalanobis", mahalanobis(held, trained, targets)),
        ("nearest neighbour", nearest_neighbour(held, trained)),
    ):
        judged_here = familiar[: len(inside)]
        outside = np.concatenate([judged_here[~inside], familiar[len(inside) :]])
        found[name] = separation(judged_here[inside], outside)
    return found


def text_vectors(directory: Path, classifier: Classifier, texts: Sequence[str], progress: Progress) -> Floats:
    """The vector of each text's first window, [n, width], in float32 on the CPU. Raises as `TextVectors` does."""
    return TextVectors(directory, classifier)(texts, progress)


class TextVectors:
    """Gives the vectors of a release's texts.

    Raises:
        MissingExtra: without the onnx package.
        IntegrityError: a graph that does not end in a linear layer.
    """

    def __init__(self, directory: Path, classifier: Classifier) -> None:
        self._session, self._output = _vector_session(directory)
        self._model = classifier.model

    def __call__(self, texts: Sequence[str], progress: Progress = lambda *_: None) -> Floats:
        """The vector of each text's first window, [n, width], in float32 on the CPU; n is at least 1."""
        windows = [one.windows[0] for one in self._model.encode(texts)]
        parts, order = [], []
        for rows in length_sorted_batches([len(window) for window in windows], BATCH_TOKENS["cpu"]):
            inputs = dict(zip(INPUTS, padded([windows[row] for row in rows], self._model.pad_id), strict=True))
            parts.append(self._session.run([self._output], inputs)[0])
            order += rows
            progress("text vectors", len(order), len(windows))
        vectors: Floats = np.concatenate(parts)[np.argsort(order)]
        return vectors


def _vector_session(directory: Path) -> tuple[ort.InferenceSession, str]:
    """The release's graph with one output more, and that output's name."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra(f"distances between text vectors need the train extra: {TRAIN_EXTRA}") from error
    model = onnx.load(directory / MODEL)
    made_by = {name: node for node in model.graph.node for name in node.output}
    node = made_by.get(OUTPUT)
    while node is not None and node.op_type in PASSED_OVER:
        node = next((made_by[name] for name in node.input if name in made_by), None)
    if node is None or node.op_type not in LINEAR:
        raise IntegrityError(f"{directory / MODEL}: does not end in a linear layer, so it has no text vectors")
    vectors = onnx.ValueInfoProto()
    vectors.name = node.input[0]
    model.graph.output.append(vectors)
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])
    return session, node.input[0]
