"""Recipes: knobs of training that go together, by name, and which one fits given data.

Knobs are set by, from the weakest: their defaults, the recipe, the task file's `[training]`, whoever trains.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from types import MappingProxyType
from typing import Any, NamedTuple

from models.bases import TEACHER_BASE
from models.errors import BadKnob
from models.tasks import Task
from models.train_settings import TrainSettings, settings_of

FEW_EXAMPLES = 16  # a label (the median one): up to here pairs of texts teach more than texts do
LONG_SHARE = 0.2  # of the texts that are longer than the model reads: from here on their beginnings are not enough
STRONG_IMBALANCE = 10.0  # examples of the commonest label for one of the rarest
MOST_TAUGHT_TOKENS = 500_000  # of the labelled texts: what the larger encoder learns in about an hour on two cores
MOST_READ_TOKENS = 6_000_000  # in all epochs: what the packaged encoder learns in about 20 minutes on two cores
FEWEST_EPOCHS = 2

# Slips and chatter in what is read, and weights that are the mean of many steps: neither costs time.
STEADY: Mapping[str, float] = MappingProxyType({"vary_share": 0.4, "average_decay": 0.99})


class Recipe(NamedTuple):
    """Knobs that go together, what they are for, and the base encoder that teaches when nobody names a teacher."""

    purpose: str
    knobs: Mapping[str, Any]
    teacher: str | None = None


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "standard": Recipe(
            "plenty of short texts: all layers learn, the lower ones more slowly",
            {"epochs": 10, "learning_rate": 2e-4, "layer_decay": 0.9, **STEADY},
        ),
        "taught": Recipe(
            "plenty of short texts: a larger encoder learns them first, once, and says what it thinks of each",
            {
                "epochs": 15,
                "learning_rate": 2e-4,
                "layer_decay": 0.9,
                "distill_weight": 0.7,
                **STEADY,
            },
            TEACHER_BASE,
        ),
        "few-shot": Recipe(
            "few examples a label: its texts and name are drawn together first, then heads start from their centroids",
            {
                "contrast_epochs": 15,
                "contrast_learning_rate": 2e-4,
                "epochs": 15,
                "learning_rate": 1e-4,
                "layer_decay": 0.9,
                "head_start": "centroids",
                "batch_texts": 32,
                "label_smoothing": 0.1,
                "learn_names": True,
                **STEADY,
            },
        ),
        "long": Recipe(
            "long texts: wide windows, another one of each text every epoch",
            {
                "max_tokens": 256,
                "long_texts": "random",
                "epochs": 6,
                "learning_rate": 2e-4,
                "layer_decay": 0.9,
                "batch_texts": 16,
                **STEADY,
            },
        ),
        "imbalanced": Recipe(
            "labels of very different frequency: the rare and the hard count more",
            {
                "epochs": 10,
                "learning_rate": 2e-4,
                "layer_decay": 0.9,
                "class_weight_power": 0.5,
                "focal_gamma": 1.0,
                "label_smoothing": 0.0,
                **STEADY,
            },
        ),
        "robust": Recipe(
            "as standard, and every batch once more with adversarial noise on its words: twice the time",
            {"epochs": 8, "learning_rate": 2e-4, "layer_decay": 0.9, "fgm_epsilon": 0.1, **STEADY},
        ),
        "teacher": Recipe(
            "a larger encoder that is to teach a small one: all of it learns, slowly",
            {"epochs": 5, "learning_rate": 4e-5, "head_learning_rate": 1e-3, "average_decay": 0.99},
        ),
        "few-shot-teacher": Recipe(
            "the same from few examples a label: drawn together first, as by few-shot",
            {
                "contrast_epochs": 6,
                "contrast_learning_rate": 5e-5,
                "epochs": 8,
                "learning_rate": 3e-5,
                "layer_decay": 0.9,
                "head_start": "centroids",
                "label_smoothing": 0.1,
                "learn_names": True,
                **STEADY,
            },
        ),
        "continue": Recipe(
            "goes on from a release: small steps, what it knew stays, labels new to it start from their texts",
            {
                "epochs": 4,
                "learning_rate": 1e-4,
                "head_learning_rate": 1e-3,
                "layer_decay": 0.9,
                "head_start": "centroids",
                "patience": 2,
                **STEADY,
            },
        ),
        "quick": Recipe("a first look, in a minute", {"epochs": 4, "learning_rate": 4e-4}),
        "lora": Recipe("low-rank adapters learn, merged at the end", {"method": "lora"}),
        "head": Recipe("the head alone learns: a baseline, in seconds", {"method": "head"}),
    }
)


class Chosen(NamedTuple):
    """A recipe's name, why it was taken, and how many epochs are enough where there is much text."""

    recipe: str
    why: str
    epochs: int | None = None


def choose(
    labels: Sequence[str],
    token_lengths: Sequence[int],
    max_tokens: int,
    teacher_there: bool = False,
) -> Chosen:
    """The recipe for data with these labels (one a text, empty for none) and so many tokens a text, a sample of them.

    `teacher_there`: a larger encoder is at hand and wanted, for data that it learns in a reasonable time. What few
    examples cannot teach it can by texts without labels, if there are any.
    """
    counts = _counts(labels)
    if (examples := median(counts.values())) <= FEW_EXAMPLES:
        why = f"half of the labels have {examples:g} examples or fewer (up to {FEW_EXAMPLES} is few)"
        if teacher_there and "" in labels:
            taught = Chosen("taught", f"{why}; {TEACHER_BASE} is there to teach, with texts that have no labels")
            return _in_time(taught, _tokens(token_lengths, max_tokens, len(labels)))
        return Chosen("few-shot", why)
    long = sum(length > max_tokens for length in token_lengths) / len(token_lengths)
    if long >= LONG_SHARE:
        why = f"{long:.0%} of the texts are longer than {max_tokens} tokens (from {LONG_SHARE:.0%} on)"
        width = RECIPES["long"].knobs["max_tokens"]
        return _in_time(Chosen("long", why), _tokens(token_lengths, width, len(labels)))
    plain = _by_balance(counts, long)
    if teacher_there and _tokens(token_lengths, max_tokens, counts.total()) <= MOST_TAUGHT_TOKENS:
        plain = Chosen("taught", f"{plain.why}; and {TEACHER_BASE} is there to teach")
    return _in_time(plain, _tokens(token_lengths, max_tokens, len(labels)))


def teacher_recipe(labels: Sequence[str]) -> str:
    """By which recipe a larger encoder learns data with these labels, one a text, to teach them."""
    return "few-shot-teacher" if median(_counts(labels).values()) <= FEW_EXAMPLES else "teacher"


def _counts(labels: Sequence[str]) -> Counter[str]:
    return Counter(label for label in labels if label)


def _tokens(lengths: Sequence[int], width: int, texts: int) -> float:
    """That an epoch reads of so many texts, by a sample of their lengths and the width of a window."""
    return fmean(min(length, width) for length in lengths) * texts


def _in_time(chosen: Chosen, tokens: float) -> Chosen:
    """The same recipe with fewer epochs where an epoch reads much: each then says more."""
    usual: int = RECIPES[chosen.recipe].knobs["epochs"]
    epochs = max(FEWEST_EPOCHS, int(MOST_READ_TOKENS / tokens))
    if epochs >= usual:
        return chosen
    return Chosen(chosen.recipe, f"{chosen.why}; {epochs} epochs, not {usual}, of {tokens:,.0f} tokens each", epochs)


def _by_balance(counts: Counter[str], long: float) -> Chosen:
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    times = counts[most] / counts[least]
    if times >= STRONG_IMBALANCE:
        return Chosen(
            "imbalanced", f"{times:.1f} examples of {most!r} for one of {least!r} (from {STRONG_IMBALANCE:g} on)"
        )
    return Chosen(
        "standard",
        f"{median(counts.values()):g} examples a label (median), {times:.1f} of the commonest for one of the rarest,"
        f" {long:.0%} long texts: nothing special",
    )


def knobs_of(recipe: str) -> Mapping[str, Any]:
    """A recipe's knobs. Raises BadKnob for a name that is none."""
    if recipe not in RECIPES:
        raise BadKnob(f"recipe {recipe!r}: no such recipe; there are: {', '.join(RECIPES)}")
    return RECIPES[recipe].knobs


def settings_for(
    task: Task, recipe: str | None, given: Mapping[str, Any], look: Callable[[], Chosen]
) -> tuple[TrainSettings, Chosen]:
    """How to train for a task: by the recipe asked for, else the method's or the task's, else by `look`ing at data.

    `given` are the knobs set by hand; they win. Raises BadKnob for a recipe or knob that cannot be.
    """
    method = given.get("method")
    if recipe:
        chosen = Chosen(recipe, "asked for")
    elif method in ("lora", "head"):
        chosen = Chosen(method, f"method {method} was asked for")
    elif task.recipe:
        chosen = Chosen(task.recipe, f"the file of task {task.name} says so")
    else:
        chosen = look()
    fewer = {} if chosen.epochs is None else {"epochs": chosen.epochs}
    return settings_of(
        {**knobs_of(chosen.recipe), **fewer, **task.training, **given}, f"recipe {chosen.recipe}"
    ), chosen
