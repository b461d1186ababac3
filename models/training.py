"""Fine-tune an encoder into a classifier of one or several tasks: one flat loop, three methods.

full   every weight learns, token embeddings only on demand
lora   low-rank adapters learn (peft), merged into the weights at the end
head   only the classification heads learn; every text passes the encoder once

With `contrast_epochs` the encoder first learns to put texts of a label together, as SetFit does (Tunstall et al. 2022):
for few examples. With `start` it goes on from a release: its encoder, and the rows of its heads' labels. Only this
module, `origins`, `network`, `losses`, `resuming` and the exporting ones import torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from models.bases import base_folder
from models.classifier import pad_id
from models.curves import Curves, Together
from models.datasets import Example, data_hash, imbalance
from models.held_out import held_out_calibration, held_out_f1
from models.lessons import UNLABELLED, Lesson, Subject, subjects_of, with_names, with_variants
from models.losses import adversarial_step, classification_loss, contrastive_loss, disagreement, distillation_loss
from models.network import (
    Feed,
    TextClassifier,
    copied,
    follow,
    imprint,
    learned_weights,
    load_tokenizer,
    merge_adapters,
    network_on,
    parameter_groups,
    set_head_to_centroids,
    set_learned_weights,
    set_learning_rates,
    weights_of,
)
from models.origins import Origin, origin_of
from models.releases import Base, Data
from models.resuming import SAVE_EVERY_S, Keeper, fingerprint
from models.schedule import (
    alternated,
    chosen_windows,
    grouped,
    learning_rate_factor,
    paired_batches,
    shuffled_batches,
    shuffler_of,
)
from models.tasks import Task
from models.temperature import Calibration
from models.train_settings import TrainSettings
from models.variation import varied
from models.windows import TextWindows, sayable, windows_of

BALANCED_UP_TO = 1.5  # commonest to rarest label: up to here class weights would only add noise
CURVE_STEPS = 10  # a point of the loss curve
SEEDS_APART = 1_000_003  # between the random numbers of two seeds: more steps than a run has

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class TrainedHead:
    """One task of a checkpoint."""

    task: Task
    labels: tuple[str, ...]
    columns: slice  # its own among the model's logits
    calibration: Calibration
    dev_macro_f1: float
    dev_examples: tuple[Example, ...]  # the model did not learn from them; it was chosen and calibrated on them
    strangers: tuple[Example, ...]  # nor from these, which are out of scope
    data: Data
    known_tokens: frozenset[int] = frozenset()  # those of the texts it learned from


@dataclass(frozen=True)
class Checkpoint:
    """A trained model in memory, with what its release has to say about it."""

    model: TextClassifier
    tokenizer: Tokenizer
    heads: tuple[TrainedHead, ...]
    max_tokens: int
    settings: TrainSettings
    base: Base
    best_epoch: int  # the one whose weights these are
    notes: Mapping[str, Any] = field(default_factory=dict)  # what else the manifest's metrics shall say


@dataclass(frozen=True)
class _Matter:
    """A lesson as the loop sees it."""

    subject: Subject
    task: Task
    learned: TextWindows
    text_of: list[int]  # of each window, its text
    held_out: TextWindows
    class_weights: torch.Tensor  # [labels]
    new_labels: list[int] | None  # to the head that the network begins with; None: it begins with none


def train(  # noqa: C901 - one flat loop, read from top to bottom
    lessons: Sequence[Lesson],
    settings: TrainSettings,
    progress: Progress,
    curves: Curves | None = None,
    state_folder: Path | None = None,
    save_every_s: float = SAVE_EVERY_S,
) -> Checkpoint:
    """Fine-tune one encoder with a head for each lesson's task, and calibrate every head.

    Batches of the tasks alternate in proportion to their sizes; each teaches the encoder and its own head. Kept is the
    epoch with the best macro-F1 on the development data, the mean of the tasks'. Without development examples a tenth
    of a task's examples, stratified, is held out for that. Long development texts are graded by all their windows, as
    they are served. The same lessons, settings and machine give the same model, also when the run was killed and
    begun again with the same `state_folder`, where its state is saved every `save_every_s`.
    Raises BadBase, BadDataset, BadTask, MissingExtra.
    """
    max_tokens = settings.max_tokens or max(lesson.task.max_tokens for lesson in lessons)
    subjects = subjects_of(lessons, settings.split_seed)
    if settings.augment:
        subjects = [with_variants(subject, settings.augment, settings.seed) for subject in subjects]
    if settings.learn_names:
        subjects = [with_names(subject) for subject in subjects]
    epochs, learning_rate = settings.preset
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    curves = curves or Together()

    # The network, and its texts as windows of token ids.
    origin = origin_of(settings, lessons, max_tokens)
    tokenizer = origin.tokenizer
    network = network_on(origin.encoder, subjects[-1].columns.stop, settings)
    origin.fill(network, [lesson.task.name for lesson in lessons], subjects)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    feed = Feed(pad_id(tokenizer), device, settings.precision)
    matters = [
        _matter(lesson, subject, origin, max_tokens, settings, device)
        for lesson, subject in zip(lessons, subjects, strict=True)
    ]

    # Epochs that draw texts of a label together, if any, then epochs that classify; a step is one of the optimiser.
    contrasts = settings.contrast_epochs
    contrast_steps = contrasts * len(_groups(1, matters, settings))
    steps = contrast_steps + epochs * len(_groups(contrasts + 1, matters, settings))
    optimizer = torch.optim.AdamW(parameter_groups(network, settings), fused=True)
    keeper = Keeper(state_folder, fingerprint(lessons, settings, origin.sha256), save_every_s)
    run = keeper.restore(network, optimizer)
    if run.step:
        progress("goes on where it was cut off", run.step, steps)
    vectors: list[torch.Tensor] | None = None  # with method head: of all windows, computed once,
    held_out: list[torch.Tensor] | None = None  # and of those to grade by

    step = 0
    for epoch in range(1, contrasts + epochs + 1):
        contrasting = epoch <= contrasts
        if contrasting:
            begin, end, rate, head_rate = 0, contrast_steps, settings.contrast_learning_rate, 0.0
        else:
            begin, end, rate, head_rate = contrast_steps, steps, learning_rate, settings.rate_of_heads
        if epoch == contrasts + 1:
            vectors = _begin_to_classify(network, matters, run.step <= step, feed, settings)
            held_out = [feed.infer(network.pooled, its.held_out.ids) for its in matters] if vectors else None
        if settings.varies:
            matters = [_varied(matter, epoch, tokenizer, max_tokens, settings) for matter in matters]
        for group in _groups(epoch, matters, settings):
            step += 1
            if step <= run.step:
                continue  # done before the run was killed
            torch.manual_seed(settings.seed * SEEDS_APART + step)  # dropout, too, is that of a run never killed
            network.train()
            loss = 0.0
            for number, windows in group:
                known = vectors[number][windows] if vectors else None
                share = 1 / len(group)
                loss += _backward(network, matters[number], windows, known, contrasting, share, feed, settings)
            factor = learning_rate_factor(step - 1 - begin, end - begin, settings.warmup, settings.schedule)
            set_learning_rates(optimizer, factor * rate, factor * head_rate)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if settings.average_decay and not contrasting:
                follow(run.mean_weights, network, settings.average_decay, step - contrast_steps)
            run.step = step
            keeper.save_now_and_then(run, network, optimizer)
            progress(f"epoch {epoch}/{contrasts + epochs}, loss {loss:.3f}", step, steps)
            if step % CURVE_STEPS == 0:
                curves.step({"train/loss": loss, "train/learning_rate": factor * rate}, step)

        if contrasting or epoch <= run.graded_epoch:
            continue
        with weights_of(network, run.mean_weights):
            f1s = [held_out_f1(*each) for each in _held_out(network, matters, feed, held_out)]
        curves.step({f"dev/macro_f1/{its.task.name}": f1 for its, f1 in zip(matters, f1s, strict=True)}, step)
        run.graded_epoch = epoch
        if fmean(f1s) > run.best_f1:
            run.best_f1, run.best_epoch = fmean(f1s), epoch
            run.best_weights = copied(run.mean_weights) or learned_weights(network)
        elif settings.patience and epoch - run.best_epoch >= settings.patience:
            break

    set_learned_weights(network, run.best_weights)
    graded = _held_out(network, matters, replace(feed, precision="float32"))
    if settings.method == "lora":
        merge_adapters(network)
    keeper.forget()
    return Checkpoint(
        model=network.eval().cpu(),
        tokenizer=tokenizer,
        heads=tuple(_trained(*each) for each in zip(lessons, matters, graded, strict=True)),
        max_tokens=max_tokens,
        settings=settings,
        base=origin.base,
        best_epoch=run.best_epoch,
    )


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text's first window, as `Model.encode` makes them."""
    tokenizer.enable_truncation(max_tokens)
    return [tokenizer.encode(sayable(text)).ids for text in texts]


def token_lengths(base: str, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has for a base encoder. Raises BadBase."""
    tokenizer = load_tokenizer(base_folder(base))
    tokenizer.no_truncation()  # which an encoder may bring with it
    return [len(tokenizer.encode(sayable(text)).ids) for text in texts]


def _matter(
    lesson: Lesson,
    subject: Subject,
    origin: Origin,
    max_tokens: int,
    settings: TrainSettings,
    device: torch.device,
) -> _Matter:
    learned = windows_of(origin.tokenizer, subject.texts, max_tokens)
    held_out = windows_of(origin.tokenizer, subject.dev_texts, max_tokens)
    weights = _class_weights(subject, settings).to(device)
    new_labels = origin.new_labels(lesson.task.name, subject.labels)
    return _Matter(subject, lesson.task, learned, learned.texts, held_out, weights, new_labels)


def _varied(matter: _Matter, epoch: int, tokenizer: Tokenizer, max_tokens: int, settings: TrainSettings) -> _Matter:
    """The matter with the texts of an epoch."""
    texts = varied(matter.subject.texts, settings.vary_share, f"{settings.seed}/{epoch}")
    learned = windows_of(tokenizer, texts, max_tokens)
    return replace(matter, learned=learned, text_of=learned.texts)


def _groups(epoch: int, matters: Sequence[_Matter], settings: TrainSettings) -> list[Sequence[tuple[int, list[int]]]]:
    """The steps of an epoch: of each, its batches as (which matter, which of its windows)."""
    batches = []
    for number, matter in enumerate(matters):
        shuffler = shuffler_of(settings.seed, epoch, number)
        chosen = chosen_windows(matter.learned.spans, settings.long_texts, shuffler)
        if epoch <= settings.contrast_epochs:
            targets = [int(matter.subject.targets[matter.text_of[window]]) for window in chosen]
            cuts = paired_batches(targets, settings.batch_texts, shuffler)
        else:
            lengths = [len(matter.learned.ids[window]) for window in chosen]
            cuts = shuffled_batches(lengths, settings.batch_texts, shuffler)
        batches.append([[chosen[place] for place in cut] for cut in cuts])
    return list(grouped(alternated(batches), settings.accumulate))


def _begin_to_classify(
    network: TextClassifier,
    matters: Sequence[_Matter],
    first_time: bool,
    feed: Feed,
    settings: TrainSettings,
) -> list[torch.Tensor] | None:
    """What follows from the encoder as it is when the heads begin to learn: their start, and vectors kept for them."""
    head_only, to_place = settings.method == "head", any(its.new_labels != [] for its in matters)
    from_centroids = settings.head_start == "centroids" and first_time and to_place
    if not (head_only or from_centroids):
        return None
    network.eval()
    vectors = [feed.infer(network.pooled, its.learned.ids) for its in matters]
    if from_centroids:
        for matter, its in zip(matters, vectors, strict=True):
            targets = torch.from_numpy(matter.subject.targets[matter.text_of]).to(feed.device)
            if matter.new_labels is None:
                set_head_to_centroids(network, matter.subject.columns, its, targets)
            else:
                imprint(network, matter.subject.columns, matter.new_labels, its, targets)
    return vectors if head_only else None


def _backward(
    network: TextClassifier,
    matter: _Matter,
    windows: Sequence[int],
    vectors: torch.Tensor | None,
    contrasting: bool,
    share: float,
    feed: Feed,
    settings: TrainSettings,
) -> float:
    """Add a batch's `share` of the gradient of a step; returns its share of the loss."""
    subject, texts = matter.subject, [matter.text_of[window] for window in windows]

    def loss_of(vectors: torch.Tensor) -> torch.Tensor:
        if contrasting:
            targets = torch.from_numpy(subject.targets[texts]).to(vectors.device)
            return share * contrastive_loss(vectors.float(), targets, settings.contrast_temperature).mean()
        logits = network.classified(vectors.float())[:, subject.columns]
        return share * _classification_loss(logits, subject, texts, matter.class_weights, settings)

    if vectors is not None:
        loss = loss_of(vectors)
        torch.autograd.backward(loss)
        return loss.item()
    if settings.agreement_weight and not contrasting:
        texts = texts * 2
        windows = [*windows, *windows]
    ids, mask = feed.tensors([matter.learned.ids[window] for window in windows])  # [n, t]
    if not settings.fgm_epsilon:
        with feed.autocast():
            vectors = network.pooled(ids, mask)
        loss = loss_of(vectors)
        torch.autograd.backward(loss)
        return loss.item()
    embedded = network.embedded(ids)
    embedded.requires_grad_() if embedded.is_leaf else embedded.retain_grad()
    with feed.autocast():
        vectors = network.pooled_from(embedded, mask)
    loss = loss_of(vectors)
    torch.autograd.backward(loss / 2)
    assert embedded.grad is not None  # noqa: S101 - it was asked for
    harder = embedded.detach() + adversarial_step(embedded.detach(), embedded.grad, mask, settings.fgm_epsilon)
    with feed.autocast():
        vectors = network.pooled_from(harder, mask)
    torch.autograd.backward(loss_of(vectors) / 2)
    return loss.item()


def _classification_loss(
    logits: torch.Tensor, subject: Subject, texts: Sequence[int], class_weights: torch.Tensor, settings: TrainSettings
) -> torch.Tensor:
    """Mean loss of logits [n, labels]: from the labels, from the teacher where there is one, or from both."""
    targets = torch.from_numpy(subject.targets[texts]).to(logits.device)
    losses = classification_loss(logits, targets, class_weights, settings.label_smoothing, settings.focal_gamma)
    if subject.soft_targets is not None:
        teacher = torch.from_numpy(subject.soft_targets[texts]).to(logits.device)
        taught = distillation_loss(logits, teacher, settings.distill_temperature)
        weight = settings.distill_weight * (teacher.sum(dim=1) > 0)  # a row of zeros: the teacher does not speak of it
        losses = torch.lerp(losses, taught, weight).where(targets != UNLABELLED, taught)
    if settings.agreement_weight and settings.method != "head":
        losses = losses + settings.agreement_weight * disagreement(logits).repeat(2)
    if subject.weights is not None:
        losses = losses * torch.from_numpy(subject.weights[texts]).to(logits.device)
    return losses.mean()


def _class_weights(subject: Subject, settings: TrainSettings) -> torch.Tensor:
    """[labels]; 1 for the mean labelled example."""
    targets = subject.targets[subject.targets != UNLABELLED]
    counts = torch.from_numpy(np.bincount(targets, minlength=len(subject.labels))).float().clamp(min=1)
    power = settings.class_weight_power if imbalance(subject.examples) > BALANCED_UP_TO else 0.0
    weights = counts.pow(-power)
    return weights * len(targets) / (weights * counts).sum()


_Graded = tuple[np.ndarray, TextWindows, Subject, Task]


def _held_out(
    network: TextClassifier, matters: Sequence[_Matter], feed: Feed, vectors: Sequence[torch.Tensor] | None = None
) -> list[_Graded]:
    """Of each task the logits [windows, labels] of its development texts, and whose they are.

    `vectors` are those of the texts if they are known, as they do not change while the head alone learns.
    """
    network.eval()
    graded = []
    for number, its in enumerate(matters):
        if vectors is None:
            rows = feed.infer(network, its.held_out.ids)
        else:
            with torch.no_grad():
                rows = network.classified(vectors[number])
        graded.append((rows[:, its.subject.columns].cpu().numpy(), its.held_out, its.subject, its.task))
    return graded


def _trained(lesson: Lesson, matter: _Matter, graded: _Graded) -> TrainedHead:
    _, _, subject, task = graded
    return TrainedHead(
        task=task,
        labels=subject.labels,
        columns=subject.columns,
        calibration=held_out_calibration(*graded),
        dev_macro_f1=held_out_f1(*graded),
        dev_examples=tuple(subject.dev_examples),
        strangers=tuple(subject.strangers),
        data=Data(name=lesson.data_name, sha256=data_hash(lesson.examples), rows=len(lesson.examples)),
        known_tokens=frozenset(one for ids in matter.learned.ids for one in ids),
    )
