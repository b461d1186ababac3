"""Do explanations name the words that count? A deletion test of the served model, against chance and against gradients.

    python -m tests.benchmarks.explanations --release DIR --task sentiment --data dev.jsonl --texts 200 --json

The words with the highest weights are deleted from a text, a tenth to a half of them, and the text is scored again: the
further the score falls, the better the words were chosen (comprehensiveness, DeYoung et al. 2020, arXiv 1911.03429).
Compared are occlusion as served, integrated gradients on the PyTorch source (Sundararajan et al. 2017, arXiv
1703.01365), and words chosen at random. Texts of fewer than MIN_WORDS words are left out: there chance is as good.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.classifier import Classifier, Span
from models.datasets import read_jsonl
from models.explanations import Explanation, explain
from models.runtimes.torch import source
from models.tasks import load_task

MIN_WORDS = 5
SHARES = (0.1, 0.2, 0.3, 0.5)  # of a text's words
RANDOM_ORDERS = 5
GRADIENT_STEPS = 16
RESAMPLES = 2000


def deletions(text: str, words: Sequence[Span], weights: Sequence[float]) -> list[str]:
    """The text without its heaviest words, for each of SHARES."""
    heaviest = sorted(range(len(words)), key=lambda word: -weights[word])
    found = []
    for share in SHARES:
        gone = sorted((words[word] for word in heaviest[: max(1, round(share * len(words)))]), reverse=True)
        left = text
        for start, end in gone:
            left = left[:start] + left[end:]
        found.append(left)
    return found


def falls(classifier: Classifier, texts: Sequence[Sequence[str]], found: Sequence[Explanation]) -> np.ndarray:
    """For each explained text how far the score of its label falls, the mean over its deletions [n]."""
    rows = classifier.classify([text for of_one in texts for text in of_one]).reshape(len(found), len(SHARES), -1)
    columns = [classifier.labels.index(one.label) for one in found]
    left = rows[np.arange(len(found)), :, columns]
    scores = np.array([one.score for one in found], np.float32)
    mean: np.ndarray = (scores[:, None] - left).mean(axis=1)
    return mean


def gradients(model: Any, classifier: Classifier, text: str, explained: Explanation) -> list[float]:
    """The weight of each word by integrated gradients of the label's probability, from the padding's embedding on."""
    served = classifier.model
    head = served.heads[classifier.task]
    column = head.columns.start + head.labels.index(explained.label)
    weights = [0.0] * len(explained.words)
    for ids, spans in zip(served.encode([text])[0].windows, served.spans(text), strict=True):
        table = model.encoder.get_input_embeddings()
        tokens = torch.tensor([ids])
        with torch.no_grad():
            start, end = table(torch.zeros_like(tokens)), table(tokens)
        steps = (torch.arange(GRADIENT_STEPS) + 0.5) / GRADIENT_STEPS
        path = (start + steps[:, None, None] * (end - start)).requires_grad_()
        hook = table.register_forward_hook(lambda *_, path=path: path)
        try:
            logits = model(tokens.expand(GRADIENT_STEPS, -1), torch.ones(GRADIENT_STEPS, len(ids), dtype=torch.int64))
        finally:
            hook.remove()
        rows = logits[:, head.columns]
        factors = torch.from_numpy(head.calibration.factors(rows.detach().numpy()))
        scores = (rows * factors[:, None]).softmax(dim=1)[:, column - head.columns.start]
        (slopes,) = torch.autograd.grad(scores.sum(), path)
        of_tokens = ((end - start) * slopes.mean(dim=0, keepdim=True)).sum(dim=2)[0].tolist()
        for (first, last), weight in zip(spans, of_tokens, strict=True):
            for place, word in enumerate(explained.words):
                if word.start <= first < last <= word.end:
                    weights[place] += weight
    return weights


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Spearman's, of two lists without ties to speak of."""
    our_ranks, their_ranks = (np.argsort(np.argsort(np.asarray(one))).astype(np.float64) for one in (ours, theirs))
    return float(np.corrcoef(our_ranks, their_ranks)[0, 1])


def interval(values: np.ndarray, seed: int) -> list[float]:
    """The 95% bootstrap interval of a mean."""
    chosen = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[chosen].mean(axis=1), [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def run(release: Path, task: str, data: Path, texts: int, seed: int, runtime: str) -> dict[str, Any]:
    """The whole comparison on some texts of a data file, as figures."""
    classifier, model = Classifier.load(release, load_task(task), runtime=runtime), source(release)
    chance = random.Random(seed)
    pool = sorted({example.text for example in read_jsonl(data)})
    chance.shuffle(pool)
    chosen: list[str] = []
    found: list[Explanation] = []
    explained_s = 0.0
    for text in pool:
        started_s = time.perf_counter()
        one = explain(classifier, text)
        if len(one.words) >= MIN_WORDS:
            explained_s += time.perf_counter() - started_s
            chosen.append(text)
            found.append(one)
        if len(chosen) == texts:
            break
    spans = [[(word.start, word.end) for word in one.words] for one in found]
    ours = [[word.weight for word in one.words] for one in found]
    theirs = [gradients(model, classifier, text, one) for text, one in zip(chosen, found, strict=True)]

    def fall(weights: Sequence[Sequence[float]]) -> np.ndarray:
        return falls(classifier, [deletions(*each) for each in zip(chosen, spans, weights, strict=True)], found)

    by_occlusion, by_gradients = fall(ours), fall(theirs)
    by_chance = np.mean([fall([[chance.random() for _ in one] for one in ours]) for _ in range(RANDOM_ORDERS)], axis=0)
    agree = [rank_correlation(*pair) for pair in zip(ours, theirs, strict=True)]
    first = [int(np.argmax(one) == np.argmax(other)) for one, other in zip(ours, theirs, strict=True)]
    return {
        "release": classifier.release,
        "runtime": classifier.model.runtime,
        "texts": len(chosen),
        "words": round(float(np.mean([len(one) for one in ours])), 1),
        "seed": seed,
        "fall_occlusion": round(float(by_occlusion.mean()), 4),
        "fall_gradients": round(float(by_gradients.mean()), 4),
        "fall_random": round(float(by_chance.mean()), 4),
        "occlusion_over_random": interval(by_occlusion - by_chance, seed),
        "occlusion_over_gradients": interval(by_occlusion - by_gradients, seed),
        "rank_correlation_with_gradients": round(float(np.mean(agree)), 3),
        "same_first_word_as_gradients": round(float(np.mean(first)), 3),
        "explain_ms": round(1000 * explained_s / len(chosen), 1),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = run(given.release, given.task, given.data, given.texts, given.seed, given.runtime)
    print(json.dumps(figures) if given.json else "\n".join(f"{name:34} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
