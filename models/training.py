"""Fine-tune an encoder into a classifier: one flat loop, three methods.

full   every weight learns, token embeddings only on demand
lora   low-rank adapters learn (peft), merged into the weights at the end
head   only the classification head learns; every text passes the encoder once

The only modules that import torch are this one and `models.export`.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from models.bases import base_folder, weights_sha256
from models.classifier import Encoded, length_sorted_batches, pad_id, padded
from models.datasets import Example, imbalance, labels_of, split
from models.errors import TRAIN_EXTRA, BadBase, BadDataset, MissingExtra
from models.evaluation import fit_temperature, macro_f1, target_indices
from models.tasks import Task

DEV_FRACTION = 0.1  # of the training examples, held out when no development data is given
BALANCED_UP_TO = 1.5  # commonest to rarest label: up to here class weights would only add noise
SORTED_BATCHES = 16  # batches sorted by length together: little padding, still a random order
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
    """Encoder, mean over the tokens that are not padding, dropout, linear head."""

    def __init__(self, encoder: torch.nn.Module, hidden: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(hidden, labels)

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Text vectors [n, hidden] of token ids [n, t]."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [n, t, hidden]
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        vectors: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return vectors

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [n, labels] of token ids [n, t]."""
        logits: torch.Tensor = self.head(self.dropout(self.pooled(input_ids, attention_mask)))
        return logits


@dataclass(frozen=True)
class Checkpoint:
    """A trained model in memory, with what its release has to say about it."""

    model: TextClassifier
    tokenizer: Tokenizer
    task: Task
    labels: tuple[str, ...]
    settings: TrainSettings
    base_name: str
    base_sha256: str
    temperature: float
    dev_macro_f1: float
    best_epoch: int  # the one whose weights these are
    dev_examples: tuple[Example, ...]  # the model did not learn from them; it was chosen and calibrated on them


def train(
    task: Task,
    train_examples: Sequence[Example],
    dev_examples: Sequence[Example] | None,
    settings: TrainSettings,
    progress: Progress,
) -> Checkpoint:
    """Fine-tune on checked examples, keep the epoch with the best macro-F1 on the development data, calibrate there.

    Without development examples a tenth of the training examples, stratified, is held out for that.
    The same examples, settings and machine give the same model. Raises BadBase, BadDataset, MissingExtra.
    """
    labels = labels_of(train_examples)
    train_examples, dev_examples = _with_dev(train_examples, dev_examples, settings.seed)
    targets, dev_targets = target_indices(labels, train_examples), target_indices(labels, dev_examples)
    epochs, learning_rate = _preset(settings)
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    shuffler = random.Random(settings.seed)  # noqa: S311 - a reproducible shuffle, nothing secret

    # The model, and its texts as token ids.
    base_name = settings.base or task.base
    folder = base_folder(base_name)
    model, tokenizer = _load(folder, len(labels), task.max_tokens, settings)
    model.eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    encoded = encode(tokenizer, [example.text for example in train_examples], task.max_tokens)
    dev_encoded = encode(tokenizer, [example.text for example in dev_examples], task.max_tokens)
    fill = pad_id(tokenizer)

    # What learns, how fast, and on what: the head alone sees each text's vector, computed once.
    if settings.method == "head":
        vectors = _infer(model.pooled, encoded, fill, device)
        dev_vectors = _infer(model.pooled, dev_encoded, fill, device)
        groups = [{"params": list(model.head.parameters()), "lr": learning_rate}]
    else:
        encoder_weights = [weight for weight in model.encoder.parameters() if weight.requires_grad]
        groups = [
            {"params": encoder_weights, "lr": learning_rate},
            {"params": list(model.head.parameters()), "lr": max(settings.head_learning_rate, learning_rate)},
        ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    steps = epochs * -(-len(encoded) // settings.batch_texts)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_up_then_decay(step, steps, settings))
    criterion = torch.nn.CrossEntropyLoss(
        weight=_class_weights(targets, train_examples, settings).to(device), label_smoothing=settings.label_smoothing
    )

    best_f1, best_epoch = -1.0, 0
    step = 0
    for epoch in range(1, epochs + 1):
        model.train()
        for rows in _batches([len(item.ids) for item in encoded], settings.batch_texts, shuffler):
            if settings.method == "head":
                logits = model.head(model.dropout(vectors[rows]))
            else:
                with _half_precision(device):
                    logits = model(*_tensors([encoded[row] for row in rows], fill, device))  # [n, labels]
            loss = criterion(logits.float(), torch.from_numpy(targets[rows]).to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            progress(f"epoch {epoch}/{epochs}, loss {loss.item():.3f}", step, steps)

        model.eval()
        with torch.inference_mode():
            head_only = settings.method == "head"
            tensor = model.head(dev_vectors) if head_only else _infer(model, dev_encoded, fill, device)
        dev_logits = tensor.cpu().numpy()  # [dev examples, labels]
        dev_f1 = macro_f1(dev_targets, dev_logits.argmax(axis=1), labels)
        if dev_f1 > best_f1:
            best_f1, best_epoch, best_logits = dev_f1, epoch, dev_logits
            best_weights = _learned(model)
        elif settings.patience and epoch - best_epoch >= settings.patience:
            break

    model.load_state_dict(best_weights, strict=False)  # frozen weights are as they were
    if settings.method == "lora":
        adapted: Any = model.encoder
        model.encoder = adapted.merge_and_unload()
    return Checkpoint(
        model=model.eval().cpu(),
        tokenizer=tokenizer,
        task=task,
        labels=labels,
        settings=settings,
        base_name=base_name,
        base_sha256=weights_sha256(folder),
        temperature=fit_temperature(best_logits, dev_targets),
        dev_macro_f1=best_f1,
        best_epoch=best_epoch,
        dev_examples=tuple(dev_examples),
    )


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
    """Token ids as `Classifier.encode` makes them."""
    tokenizer.enable_truncation(max_tokens)
    return [Encoded(encoding.ids, bool(encoding.overflowing)) for encoding in map(tokenizer.encode, texts)]


def _with_dev(
    examples: Sequence[Example], dev_examples: Sequence[Example] | None, seed: int
) -> tuple[Sequence[Example], Sequence[Example]]:
    if dev_examples:
        return examples, dev_examples
    rest, held_out = split(examples, DEV_FRACTION, seed)
    if not held_out:
        raise BadDataset("every label has a single example, so none can be held out: add examples, or give --dev")
    return rest, held_out


def _preset(settings: TrainSettings) -> tuple[int, float]:
    epochs, learning_rate = PRESETS[settings.method]
    return settings.epochs or epochs, settings.learning_rate or learning_rate


def _load(folder: Path, labels: int, max_tokens: int, settings: TrainSettings) -> tuple[TextClassifier, Tokenizer]:
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
    model = TextClassifier(encoder_module, config.hidden_size, labels, settings.dropout)
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


def _class_weights(targets: np.ndarray, examples: Sequence[Example], settings: TrainSettings) -> torch.Tensor:
    counts = torch.from_numpy(np.bincount(targets)).float().clamp(min=1)
    power = settings.class_weight_power if imbalance(examples) > BALANCED_UP_TO else 0.0
    weights = counts.pow(-power)
    return weights * len(targets) / (weights * counts).sum()  # 1 for the mean example


def _warm_up_then_decay(step: int, steps: int, settings: TrainSettings) -> float:
    rise = max(1, round(settings.warmup * steps))
    return (step + 1) / rise if step < rise else max(0.0, (steps - step) / max(1, steps - rise))


def _batches(lengths: Sequence[int], batch_texts: int, shuffler: random.Random) -> Iterator[list[int]]:
    """Every row once: shuffled, then sorted by length within stretches, cut, and the cuts shuffled."""
    rows = list(range(len(lengths)))
    shuffler.shuffle(rows)
    stretch = SORTED_BATCHES * batch_texts
    batches = []
    for start in range(0, len(rows), stretch):
        alike = sorted(rows[start : start + stretch], key=lengths.__getitem__)
        batches += [alike[cut : cut + batch_texts] for cut in range(0, len(alike), batch_texts)]
    shuffler.shuffle(batches)
    yield from batches


def _tensors(batch: Sequence[Encoded], fill: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = padded(batch, fill)
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _infer(
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    encoded: Sequence[Encoded],
    fill: int,
    device: torch.device,
) -> torch.Tensor:
    """The rows of `forward` [n, width] for every text, in order, without gradients or dropout."""
    parts, order = [], []
    with torch.no_grad():
        for rows in length_sorted_batches([len(item.ids) for item in encoded], EMBED_TOKENS):
            parts.append(forward(*_tensors([encoded[row] for row in rows], fill, device)))
            order += rows
    joined = torch.cat(parts)
    return torch.empty_like(joined).index_copy_(0, torch.tensor(order, device=device), joined)


def _half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies in it (2.5 times as fast on a CPU with avx512_bf16); elsewhere float32."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
    has = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=has.get("avx512_bf16", False) or has.get("amx_bf16", False))
