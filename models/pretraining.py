"""Domain-adaptive pre-training: an encoder fills in masked tokens of unlabelled text, and becomes a new base encoder.

Masked anew in every epoch, as Liu et al. 2019 found better; that it helps to do so on a task's own domain before
fine-tuning: Gururangan et al. 2020. Sentence encoders come without the head that names tokens, so a new one first
learns alone: its first gradients would only harm what the encoder knows.
"""

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from models.bases import BaseRecord, base_folder, identify, publish_base, weights_sha256, write_record
from models.classifier import pad_id
from models.datasets import Example, data_hash
from models.errors import BadBase, BadDataset
from models.masking import NOT_MASKED, Masking
from models.network import Feed, load_encoder, load_tokenizer
from models.padding import length_sorted_batches
from models.releases import Base, Data
from models.schedule import learning_rate_factor
from models.tasks import PACKAGED_BASE

LEAST_TOKENS = 2  # of a window, special ones not counted: a masked one needs company
LEAST_WINDOWS = 20
STRETCH = 4096  # windows that are sorted by length together: little padding, still a random order
PACKAGES = ("torch", "transformers", "tokenizers")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json")

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


class PretrainSettings(BaseModel):
    """How to pre-train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = PACKAGED_BASE
    epochs: int = Field(default=3, ge=1, le=1000)
    learning_rate: float = Field(default=1e-4, gt=0, lt=1, description="of the encoder")
    head_learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    head_alone: float = Field(default=0.3, ge=0, lt=1, description="share of the first epoch in which it learns alone")
    learn_embeddings: bool = Field(default=False, description="token embeddings learn too: slower, and more to forget")
    mask_rate: float = Field(default=0.15, gt=0, lt=1)
    max_tokens: int = Field(default=128, ge=8, le=8192, description="a longer text is read in pieces of so many tokens")
    batch_tokens: int = Field(default=4096, ge=64, le=1 << 20, description="padding included")
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the encoder's steps")
    dev_fraction: float = Field(default=0.05, gt=0, lt=1, description="of the text, held out to choose the epoch by")
    seed: int = 7
    threads: int | None = Field(default=None, ge=1)


class Filler(torch.nn.Module):
    """An encoder under a head that names tokens: dense, GELU, norm, and the encoder's own token embeddings."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        vocabulary, width = encoder.get_input_embeddings().weight.shape
        self.dense = torch.nn.Linear(encoder.config.hidden_size, width)
        self.norm = torch.nn.LayerNorm(width)
        self.bias = torch.nn.Parameter(torch.zeros(vocabulary))

    def head_parameters(self) -> list[torch.nn.Parameter]:
        """What is not the encoder's."""
        return [*self.dense.parameters(), *self.norm.parameters(), self.bias]

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, chosen: torch.Tensor, encoder_learns: bool
    ) -> torch.Tensor:
        """Logits [chosen, vocabulary] of the tokens of ids [n, t] where `chosen` [n, t] is true."""
        with torch.set_grad_enabled(encoder_learns and torch.is_grad_enabled()):
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # [n, t, hidden]
        vectors = self.norm(torch.nn.functional.gelu(self.dense(states[chosen])))
        embeddings = self.encoder.get_input_embeddings().weight  # [vocabulary, width]
        logits: torch.Tensor = vectors @ (embeddings if encoder_learns else embeddings.detach()).T + self.bias
        return logits


def pretrain(
    texts: Sequence[str], data_name: str, settings: PretrainSettings, out: Path, progress: Progress
) -> BaseRecord:
    """Train a base encoder further on texts, and publish it as the directory `out`, which `train --base` takes.

    Kept is the epoch with the least loss on the held-out text. The same texts, settings and machine give the same
    encoder. Raises BadBase, BadDataset.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    folder = base_folder(settings.base)
    parent = identify(settings.base, folder)
    tokenizer = load_tokenizer(folder)
    masking = Masking(tokenizer, settings.mask_rate)
    learned, held_out = _windows(tokenizer, masking, texts, settings)

    # What learns: the head from the start, the encoder once the head knows something.
    encoder: Any = load_encoder(folder, settings.max_tokens)
    encoder.get_input_embeddings().requires_grad_(settings.learn_embeddings)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    filler = Filler(encoder).to(device)
    feed = Feed(pad_id(tokenizer), device, "auto")
    groups = [
        {"params": [weight for weight in encoder.parameters() if weight.requires_grad]},
        {"params": filler.head_parameters()},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)

    epochs = [_batches(learned, settings, epoch) for epoch in range(settings.epochs)]
    steps = sum(map(len, epochs))
    alone = min(round(settings.head_alone * len(epochs[0])), len(epochs[0]) - 1)
    losses: list[float] = []  # on the held-out text: of the encoder as it was, then of each epoch
    best: dict[str, torch.Tensor] = {}
    step, best_epoch, least = 0, 0, math.inf
    for number, batches in enumerate(epochs):
        chance = np.random.default_rng((settings.seed, number))
        for rows in batches:
            if step == alone:
                losses.append(_held_out_loss(filler, held_out, masking, feed, settings))
            filler.train()
            with feed.autocast():
                loss = _loss(filler, [learned[row] for row in rows], masking, chance, feed, step >= alone)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(filler.parameters(), 1.0)
            factor = learning_rate_factor(max(0, step - alone), steps - alone, settings.warmup, "linear")
            optimizer.param_groups[0]["lr"] = settings.learning_rate * factor
            optimizer.param_groups[1]["lr"] = settings.head_learning_rate * (factor if step >= alone else 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            progress(f"epoch {number + 1}/{len(epochs)}, loss {loss.item():.3f}", step, steps)
        losses.append(_held_out_loss(filler, held_out, masking, feed, settings))
        if losses[-1] < least:
            least, best_epoch = losses[-1], number + 1
            best = {name: weight.detach().cpu().clone() for name, weight in encoder.state_dict().items()}
    if not math.isfinite(least):
        raise BadBase(f"pre-training came to no finite loss ({losses}): choose a lower learning rate")

    encoder.load_state_dict(best)
    data = Data(name=data_name, sha256=data_hash(Example(text, "") for text in texts), rows=len(texts))
    metrics = {"held_out_loss_before": losses[0], "held_out_loss_of_epochs": losses[1:], "best_epoch": best_epoch}
    return _published(encoder, folder, out, parent, data, settings, metrics)


def _published(
    encoder: Any,
    source: Path,
    out: Path,
    parent: Base,
    data: Data,
    settings: PretrainSettings,
    metrics: dict[str, Any],
) -> BaseRecord:
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".base-", dir=out.parent) as scratch:
        made = Path(scratch) / "base"
        encoder.cpu().save_pretrained(made)
        for pattern in TOKENIZER_FILES:
            for path in source.glob(pattern):
                copyfile(path, made / path.name)
        record = BaseRecord(
            name=out.name,
            sha256=weights_sha256(made),
            source="masked language modelling",
            parent=parent,
            data=(data,),
            settings=settings.model_dump(),
            metrics=metrics,
            versions={package: version(package) for package in PACKAGES},
            created_at=datetime.now(UTC),
        )
        write_record(made, record)
        publish_base(made, out)
    return record


def _windows(
    tokenizer: Tokenizer, masking: Masking, texts: Sequence[str], settings: PretrainSettings
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of all pieces of all texts, those to learn and those held out: no text is in both."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings.max_tokens)
    chooser = random.Random(settings.seed)  # noqa: S311 - a reproducible choice, nothing secret
    held = set(chooser.sample(range(len(texts)), max(1, round(len(texts) * settings.dev_fraction)))) if texts else set()
    parts: tuple[list[list[int]], list[list[int]]] = ([], [])
    for number, text in enumerate(texts):
        first = tokenizer.encode(text)
        pieces = [piece.ids for piece in (first, *first.overflowing) if masking.maskable(piece.ids) >= LEAST_TOKENS]
        parts[number in held].extend(pieces)
    if len(parts[0]) < LEAST_WINDOWS or not parts[1]:
        raise BadDataset(
            f"{len(texts)} texts give {len(parts[0])} pieces to learn and {len(parts[1])} to hold out: pre-training"
            f" needs {LEAST_WINDOWS} and 1 at least, of {LEAST_TOKENS} tokens or more; thousands to be worth while"
        )
    return parts


def _batches(windows: Sequence[Sequence[int]], settings: PretrainSettings, epoch: int) -> list[list[int]]:
    """Every window once, in batches of similar length and `batch_tokens`, in the epoch's own random order."""
    shuffler = random.Random(f"{settings.seed}/{epoch}")  # noqa: S311 - a reproducible shuffle, nothing secret
    rows = list(range(len(windows)))
    shuffler.shuffle(rows)
    batches = []
    for start in range(0, len(rows), STRETCH):
        stretch = rows[start : start + STRETCH]
        cuts = length_sorted_batches([len(windows[row]) for row in stretch], settings.batch_tokens)
        batches += [[stretch[place] for place in cut] for cut in cuts]
    shuffler.shuffle(batches)
    return batches


def _loss(
    filler: Filler,
    windows: Sequence[Sequence[int]],
    masking: Masking,
    chance: np.random.Generator,
    feed: Feed,
    encoder_learns: bool,
) -> torch.Tensor:
    """Mean cross-entropy over the masked tokens of a batch."""
    ids, mask = feed.tensors(windows)
    seen, wanted = masking(ids.cpu().numpy(), mask.cpu().numpy(), chance)
    targets = torch.from_numpy(wanted).to(feed.device)
    chosen = targets != NOT_MASKED
    logits = filler(torch.from_numpy(seen).to(feed.device), mask, chosen, encoder_learns)
    return torch.nn.functional.cross_entropy(logits.float(), targets[chosen])


def _held_out_loss(
    filler: Filler, windows: Sequence[Sequence[int]], masking: Masking, feed: Feed, settings: PretrainSettings
) -> float:
    """Mean loss over the held-out text, of which always the same tokens are masked."""
    filler.eval()
    chance = np.random.default_rng(settings.seed)
    total, count = 0.0, 0
    with torch.no_grad():
        for rows in length_sorted_batches([len(window) for window in windows], settings.batch_tokens):
            with feed.autocast():
                loss = _loss(filler, [windows[row] for row in rows], masking, chance, feed, False)
            total, count = total + loss.item() * len(rows), count + len(rows)
    return total / count
