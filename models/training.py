"""Fine-tune an encoder into a classifier of one or several tasks: one flat loop, three methods.

full   every weight learns, token embeddings only on demand
lora   low-rank adapters learn (peft), merged into the weights at the end
head   only the classification heads learn; every text passes the encoder once

Only this module, `models.losses` and the exporting ones import torch.
"""

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from models.bases import base_folder, weights_sha256
from models.calibration import fit_temperature
from models.classifier import pad_id
from models.datasets import Example, data_hash, imbalance
from models.errors import TRAIN_EXTRA, BadBase, MissingExtra
from models.evaluation import macro_f1
from models.lessons import UNLABELLED, Lesson, Subject, base_of, subjects_of
from models.losses import classification_loss, distillation_loss
from models.padding import length_sorted_batches, padded
from models.releases import Data
from models.schedule import alternated, shuffled_batches, warm_up_then_decay
from models.tasks import Task

BALANCED_UP_TO = 1.5  # commonest to rarest label: up to here class weights would only add noise
EMBED_TOKENS = 4096  # padded tokens in one batch without gradients

Method = Literal["full", "lora", "head"]
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


class TrainSettings(BaseModel):
    """How to train; None leaves a knob to the method's own default in `PRESETS`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "full"
    base: str | None = Field(default=None, description="instead of the task's base encoder")
    epochs: int | None = Field(default=None, ge=1, le=1000)
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    head_learning_rate: float = Field(default=2e-3, gt=0, lt=1)
    batch_texts: int = Field(default=32, ge=1, le=4096)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the steps the learning rate rises in")
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    focal_gamma: float = Field(default=0.0, ge=0, le=10, description="0: plain cross-entropy")
    distill_weight: float = Field(
        default=0.5, ge=0, le=1, description="of the teacher's say where there is a label too"
    )
    distill_temperature: float = Field(default=2.0, gt=0, le=20)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    class_weight_power: float = Field(default=0.5, ge=0, le=1, description="0: none; 1: inverse of the frequency")
    patience: int | None = Field(default=None, ge=1, description="stop after so many epochs without a better macro-F1")
    learn_embeddings: bool = Field(default=False, description="full only; twice the time for a step on a CPU")
    lora_rank: int = Field(default=16, ge=1, le=512)
    seed: int = 7
    threads: int | None = Field(default=None, ge=1)


PRESETS: dict[Method, tuple[int, float]] = {  # epochs, learning rate of the encoder (full, lora) or head
    "full": (5, 2e-4),
    "lora": (8, 1e-3),
    "head": (60, 5e-3),
}


class TextClassifier(torch.nn.Module):
    """Encoder, mean over the tokens that are not padding, dropout, and the linear heads of all tasks side by side."""

    def __init__(self, encoder: torch.nn.Module, hidden: int, columns: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(hidden, columns)

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Text vectors [n, hidden] of token ids [n, t]."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [n, t, hidden]
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        vectors: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return vectors

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [n, columns] of token ids [n, t]."""
        logits: torch.Tensor = self.head(self.dropout(self.pooled(input_ids, attention_mask)))
        return logits


@dataclass(frozen=True)
class TrainedHead:
    """One task of a checkpoint."""

    task: Task
    labels: tuple[str, ...]
    columns: slice  # its own among the model's logits
    temperature: float
    dev_macro_f1: float
    dev_examples: tuple[Example, ...]  # the model did not learn from them; it was chosen and calibrated on them
    strangers: tuple[Example, ...]  # nor from these, which are out of scope
    data: Data


@dataclass(frozen=True)
class Checkpoint:
    """A trained model in memory, with what its release has to say about it."""

    model: TextClassifier
    tokenizer: Tokenizer
    heads: tuple[TrainedHead, ...]
    max_tokens: int
    settings: TrainSettings
    base_name: str
    base_sha256: str
    best_epoch: int  # the one whose weights these are


def train(lessons: Sequence[Lesson], settings: TrainSettings, progress: Progress) -> Checkpoint:
    """Fine-tune one encoder with a head for each lesson's task, and calibrate every head.

    Batches of the tasks alternate in proportion to their sizes; each teaches the encoder and its own head. Kept is the
    epoch with the best macro-F1 on the development data, the mean of the tasks'. Without development examples a tenth
    of a task's examples, stratified, is held out for that. A text longer than `max_tokens` is learned by its beginning.
    The same lessons, settings and machine give the same model. Raises BadBase, BadDataset, BadTask, MissingExtra.
    """
    base_name, max_tokens = settings.base or base_of(lessons), max(lesson.task.max_tokens for lesson in lessons)
    subjects = subjects_of(lessons, settings.seed)
    epochs, learning_rate = _preset(settings)
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    shuffler = random.Random(settings.seed)  # noqa: S311 - a reproducible shuffle, nothing secret

    # The model, and its texts as token ids.
    folder = base_folder(base_name)
    model, tokenizer = _load(folder, subjects[-1].columns.stop, max_tokens, settings)
    model.eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    fill = pad_id(tokenizer)
    encoded = [encode(tokenizer, subject.texts, max_tokens) for subject in subjects]
    dev_encoded = [encode(tokenizer, subject.dev_texts, max_tokens) for subject in subjects]

    # What learns, how fast, and on what: the heads alone see each text's vector, computed once.
    head_only = settings.method == "head"
    if head_only:
        vectors = [_infer(model.pooled, windows, fill, device) for windows in encoded]
        dev_vectors = [_infer(model.pooled, windows, fill, device) for windows in dev_encoded]
        groups = [{"params": list(model.head.parameters()), "lr": learning_rate}]
    else:
        encoder_weights = [weight for weight in model.encoder.parameters() if weight.requires_grad]
        groups = [
            {"params": encoder_weights, "lr": learning_rate},
            {"params": list(model.head.parameters()), "lr": max(settings.head_learning_rate, learning_rate)},
        ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    steps = epochs * sum(-(-len(windows) // settings.batch_texts) for windows in encoded)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_decay(step, steps, settings.warmup)
    )
    class_weights = [_class_weights(subject, settings).to(device) for subject in subjects]

    best_f1, best_epoch, step = -1.0, 0, 0
    for epoch in range(1, epochs + 1):
        model.train()
        lengths = [[len(window) for window in windows] for windows in encoded]
        batches = [shuffled_batches(its, settings.batch_texts, shuffler) for its in lengths]
        for number, rows in alternated(batches):
            if head_only:
                logits = model.head(model.dropout(vectors[number][rows]))
            else:
                with _half_precision(device):
                    logits = model(*_tensors([encoded[number][row] for row in rows], fill, device))  # [n, columns]
            subject = subjects[number]
            loss = _loss(logits[:, subject.columns].float(), subject, rows, class_weights[number], settings)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            progress(f"epoch {epoch}/{epochs}, loss {loss.item():.3f}", step, steps)

        model.eval()
        with torch.inference_mode():
            if head_only:
                outputs = [model.head(its) for its in dev_vectors]
            else:
                outputs = [_infer(model, windows, fill, device) for windows in dev_encoded]
        dev_logits = [
            output[:, subject.columns].cpu().numpy() for subject, output in zip(subjects, outputs, strict=True)
        ]
        dev_f1s = [_dev_f1(subject, logits) for subject, logits in zip(subjects, dev_logits, strict=True)]
        if fmean(dev_f1s) > best_f1:
            best_f1, best_epoch, best_f1s, best_logits = fmean(dev_f1s), epoch, dev_f1s, dev_logits
            best_weights = _learned(model)
        elif settings.patience and epoch - best_epoch >= settings.patience:
            break

    model.load_state_dict(best_weights, strict=False)  # frozen weights are as they were
    if settings.method == "lora":
        adapted: Any = model.encoder
        model.encoder = adapted.merge_and_unload()
    heads = [_trained(*each) for each in zip(lessons, subjects, best_logits, best_f1s, strict=True)]
    return Checkpoint(
        model=model.eval().cpu(),
        tokenizer=tokenizer,
        heads=tuple(heads),
        max_tokens=max_tokens,
        settings=settings,
        base_name=base_name,
        base_sha256=weights_sha256(folder),
        best_epoch=best_epoch,
    )


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text's first window, as `Model.encode` makes them."""
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in map(tokenizer.encode, texts)]


def _dev_f1(subject: Subject, logits: np.ndarray) -> float:
    return macro_f1(subject.dev_targets, logits.argmax(axis=1), subject.labels)


def _trained(lesson: Lesson, subject: Subject, dev_logits: np.ndarray, dev_f1: float) -> TrainedHead:
    return TrainedHead(
        task=lesson.task,
        labels=subject.labels,
        columns=subject.columns,
        temperature=fit_temperature(dev_logits, subject.dev_targets),
        dev_macro_f1=dev_f1,
        dev_examples=tuple(subject.dev_examples),
        strangers=tuple(subject.strangers),
        data=Data(name=lesson.data_name, sha256=data_hash(lesson.examples), rows=len(lesson.examples)),
    )


def _preset(settings: TrainSettings) -> tuple[int, float]:
    epochs, learning_rate = PRESETS[settings.method]
    return settings.epochs or epochs, settings.learning_rate or learning_rate


def _load(folder: Path, columns: int, max_tokens: int, settings: TrainSettings) -> tuple[TextClassifier, Tokenizer]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
        # "eager" attention: it exports to the plainest graph, and on short texts it is as fast as any.
        encoder = AutoModel.from_pretrained(
            folder, config=config, attn_implementation="eager", use_safetensors=True, dtype=torch.float32
        )
        fast = AutoTokenizer.from_pretrained(folder, use_fast=True)
        tokenizer = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    except (OSError, ValueError, KeyError) as error:
        raise BadBase(f"base: {folder}: cannot be loaded: {error}") from error
    positions = getattr(config, "max_position_embeddings", max_tokens)
    if positions < max_tokens:
        raise BadBase(f"base: {folder} reads {positions} tokens at most, and the task's max_tokens is {max_tokens}")
    tokenizer.enable_padding(pad_id=fast.pad_token_id or 0, pad_token=fast.pad_token or "[PAD]")
    encoder_module: Any = encoder
    if settings.method == "lora":
        encoder_module = _with_adapters(encoder, settings.lora_rank)
    model = TextClassifier(encoder_module, config.hidden_size, columns, settings.dropout)
    if settings.method == "head":
        model.encoder.requires_grad_(False)
    elif settings.method == "full" and not settings.learn_embeddings:
        encoder.get_input_embeddings().requires_grad_(False)
    return model, tokenizer


def _with_adapters(encoder: Any, rank: int) -> torch.nn.Module:
    try:
        import peft
    except ImportError as error:
        raise MissingExtra(f"method: lora needs the peft package: {TRAIN_EXTRA}") from error
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules="all-linear")
    with warnings.catch_warnings():
        # peft still asks transformers by an attribute's old name; nothing that we could call otherwise.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted: torch.nn.Module = peft.get_peft_model(encoder, config)
    return adapted


def _learned(model: TextClassifier) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def _loss(
    logits: torch.Tensor, subject: Subject, rows: Sequence[int], class_weights: torch.Tensor, settings: TrainSettings
) -> torch.Tensor:
    """Mean loss of a batch's logits [n, labels]: from the labels, from the teacher where there is one, or from both."""
    targets = torch.from_numpy(subject.targets[rows]).to(logits.device)
    losses = classification_loss(logits, targets, class_weights, settings.label_smoothing, settings.focal_gamma)
    if subject.soft_targets is not None:
        teacher = torch.from_numpy(subject.soft_targets[rows]).to(logits.device)
        taught = distillation_loss(logits, teacher, settings.distill_temperature)
        losses = torch.lerp(losses, taught, settings.distill_weight).where(targets != UNLABELLED, taught)
    return losses.mean()


def _class_weights(subject: Subject, settings: TrainSettings) -> torch.Tensor:
    """[labels]; 1 for the mean labelled example."""
    targets = subject.targets[subject.targets != UNLABELLED]
    counts = torch.from_numpy(np.bincount(targets, minlength=len(subject.labels))).float().clamp(min=1)
    power = settings.class_weight_power if imbalance(subject.examples) > BALANCED_UP_TO else 0.0
    weights = counts.pow(-power)
    return weights * len(targets) / (weights * counts).sum()


def _tensors(batch: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = padded(batch, fill)
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _infer(
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    windows: Sequence[Sequence[int]],
    fill: int,
    device: torch.device,
) -> torch.Tensor:
    """The rows of `forward` [n, width] for every window, in order, without gradients or dropout."""
    parts, order = [], []
    with torch.no_grad():
        for rows in length_sorted_batches([len(window) for window in windows], EMBED_TOKENS):
            parts.append(forward(*_tensors([windows[row] for row in rows], fill, device)))
            order += rows
    joined = torch.cat(parts)
    return torch.empty_like(joined).index_copy_(0, torch.tensor(order, device=device), joined)


def _half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies in it (2.5 times as fast on a CPU with avx512_bf16); elsewhere float32."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
    has = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=has.get("avx512_bf16", False) or has.get("amx_bf16", False))
