"""Text vectors of a base encoder, as it comes: for what is asked of data before a model has learned from them."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from models.bases import base_folder
from models.classifier import pad_id
from models.network import Feed, load_encoder, load_tokenizer, network_on
from models.tasks import PACKAGED_BASE
from models.train_settings import TrainSettings
from models.training import encode

MAX_TOKENS = 128  # of a text's beginning: what it is about is said there
TEXTS_AT_ONCE = 256  # between two reports of progress


def text_vectors(
    texts: Sequence[str], base: str = PACKAGED_BASE, progress: Callable[[str, int, int], None] | None = None
) -> npt.NDArray[np.float32]:
    """The mean vector [n, width] of each text's first MAX_TOKENS tokens. Raises BadBase for an encoder that is none."""
    folder = base_folder(base)
    tokenizer = load_tokenizer(folder)
    network = network_on(load_encoder(folder, MAX_TOKENS), 1, TrainSettings(method="head")).eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    feed = Feed(pad_id(tokenizer), device, "auto")
    parts = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        windows = encode(tokenizer, texts[start : start + TEXTS_AT_ONCE], MAX_TOKENS)
        parts.append(feed.infer(network.pooled, windows).cpu().numpy())
        if progress is not None:
            progress("encode", min(start + TEXTS_AT_ONCE, len(texts)), len(texts))
    vectors: npt.NDArray[np.float32] = np.concatenate(parts)
    return vectors
