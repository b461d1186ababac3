"""The network that learns: an encoder under linear heads, how it is loaded, and which of its weights learn how fast."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from models.bases import readable_tokens
from models.errors import TRAIN_EXTRA, BadBase, MissingExtra
from models.padding import length_sorted_batches, padded
from models.train_settings import Precision, TrainSettings

EMBED_TOKENS = 4096  # padded tokens in one batch without gradients
LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")  # where in an encoder's parameter name its layer is

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ids and mask [n, t] to rows [n, width]

CENTROID_LOGIT = 10.0  # of a text that lies where its label's centroid does
SHRINKAGE = 0.1  # of a covariance of few vectors towards one that is the same in all directions


class TextClassifier(torch.nn.Module):
    """Encoder, mean over the tokens that are not padding, dropout, and the linear heads of all tasks side by side."""

    def __init__(self, encoder: torch.nn.Module, hidden: int, columns: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(hidden, columns)

    def pooled(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Text vectors [n, hidden] of token ids [n, t]."""
        return _mean(self.encoder(input_ids=input_ids, attention_mask=attention_mask), attention_mask)

    def pooled_from(self, embedded: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Text vectors [n, hidden] of embedded tokens [n, t, hidden], as `embedded` gives them."""
        return _mean(self.encoder(inputs_embeds=embedded, attention_mask=attention_mask), attention_mask)

    def embedded(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The encoder's own embedding [n, t, hidden] of each token."""
        encoder: Any = self.encoder
        vectors: torch.Tensor = encoder.get_input_embeddings()(input_ids)
        return vectors

    def classified(self, vectors: torch.Tensor) -> torch.Tensor:
        """Logits [n, columns] of text vectors [n, hidden]."""
        logits: torch.Tensor = self.head(self.dropout(vectors))
        return logits

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits [n, columns] of token ids [n, t]."""
        return self.classified(self.pooled(input_ids, attention_mask))


def _mean(output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
    states = output.last_hidden_state  # [n, t, hidden]
    weights = attention_mask.unsqueeze(-1).to(states.dtype)
    vectors: torch.Tensor = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    return vectors


def load_tokenizer(folder: Path) -> Tokenizer:
    """A base encoder's tokenizer, with the padding it was made for. Raises BadBase when it cannot be loaded."""
    transformers.logging.set_verbosity_error()
    try:
        fast = AutoTokenizer.from_pretrained(folder, use_fast=True)
        tokenizer = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    except (OSError, ValueError, KeyError) as error:
        raise BadBase(f"base: {folder}: cannot be loaded: {error}") from error
    tokenizer.enable_padding(pad_id=fast.pad_token_id or 0, pad_token=fast.pad_token or "[PAD]")
    return tokenizer


def load_encoder(folder: Path, max_tokens: int) -> Any:
    """A base encoder in float32. Raises BadBase for one that cannot be loaded or reads fewer than `max_tokens`."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder)
        # "eager" attention: it exports to the plainest graph, and on short texts it is as fast as any.
        encoder: Any = AutoModel.from_pretrained(
            folder, config=config, attn_implementation="eager", use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadBase(f"base: {folder}: cannot be loaded: {error}") from error
    require_reading(folder, config.to_dict(), max_tokens)
    return encoder


def require_reading(folder: Path, config: Mapping[str, Any], max_tokens: int) -> None:
    """Raises BadBase for an encoder of this configuration that reads fewer than `max_tokens`."""
    readable = readable_tokens(config)
    if readable is not None and readable < max_tokens:
        raise BadBase(f"base: {folder} reads {readable} tokens at most, and the task's max_tokens is {max_tokens}")


def network_on(encoder: Any, columns: int, settings: TrainSettings) -> TextClassifier:
    """An encoder under new heads, what the method does not teach frozen. Raises MissingExtra for no peft."""
    module = _with_adapters(encoder, settings.lora_rank) if settings.method == "lora" else encoder
    network = TextClassifier(module, encoder.config.hidden_size, columns, settings.dropout)
    if settings.method == "head" and not settings.contrast_epochs:
        network.encoder.requires_grad_(False)
    elif settings.method != "lora" and not settings.learn_embeddings:
        encoder.get_input_embeddings().requires_grad_(False)
    return network


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


def merge_adapters(network: TextClassifier) -> None:
    """Add low-rank adapters into the weights they adapt."""
    adapted: Any = network.encoder
    network.encoder = adapted.merge_and_unload()


def parameter_groups(network: TextClassifier, settings: TrainSettings) -> list[dict[str, Any]]:
    """What learns, in groups for an optimiser: each has a `weight_decay`, and a `share` of the encoder's learning rate.

    The top layer learns at the full rate, each one below `layer_decay` times slower, the embeddings slowest (Howard
    and Ruder 2018, Sun et al. 2019). The heads have share 0: their rate is their own. Biases and norms do not decay.
    """
    encoder = dict(network.encoder.named_parameters())
    layers = 1 + max((_layer(name, -1) for name in encoder), default=-1)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in encoder.items():
        if weight.requires_grad:
            depth = 0 if "embeddings" in name else _layer(name, layers - 1) + 1  # 0: embeddings; `layers`: top
            decay = settings.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((settings.layer_decay ** (layers - depth), decay), []).append(weight)
    for weight in network.head.parameters():
        groups.setdefault((0.0, settings.weight_decay if weight.ndim > 1 else 0.0), []).append(weight)
    return [{"params": its, "share": share, "weight_decay": decay} for (share, decay), its in groups.items()]


def set_learning_rates(optimizer: torch.optim.Optimizer, encoder_rate: float, head_rate: float) -> None:
    """Give every group of `parameter_groups` its learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = encoder_rate * group["share"] if group["share"] else head_rate


def _layer(name: str, otherwise: int) -> int:
    found = LAYER.search(f".{name}")
    return int(found.group(1)) if found else otherwise


def set_head_to_centroids(
    network: TextClassifier, columns: slice, vectors: torch.Tensor, targets: torch.Tensor
) -> None:
    """Start a head from the mean direction of each label's vectors [n, hidden]; `targets` [n], negative without label.

    A label without a vector keeps its random row. A nearest-centroid classifier is what few examples support best
    (Snell et al. 2017), and it is a start from which few steps lead far.
    """
    directions = torch.nn.functional.normalize(vectors, dim=1)
    scale = CENTROID_LOGIT / vectors.norm(dim=1).mean()
    with torch.no_grad():
        for label in range(columns.stop - columns.start):
            its = directions[targets == label]
            if len(its):
                centroid = torch.nn.functional.normalize(its.mean(dim=0), dim=0)
                network.head.weight[columns.start + label] = scale * centroid
                network.head.bias[columns.start + label] = 0.0


def imprint(
    network: TextClassifier, columns: slice, new: Sequence[int], vectors: torch.Tensor, targets: torch.Tensor
) -> None:
    """Start the `new` labels of a head that knows its others, from the mean vector of each.

    A row is imprinted (Qi, Brown and Lowe 2018), along Fisher's discriminant (1936): where its label's mean is far from
    that of the known labels' vectors for how much those vary. A plain mean would lie where the known labels differ, and
    take their texts. The row is as long as the known ones; its bias lies halfway between what its own texts and what
    the known labels' texts need for it to win. `vectors` [n, hidden]; `targets` [n], negative without label. A new
    label without a vector keeps its random row.
    """
    weight, bias = network.head.weight[columns], network.head.bias[columns]
    with torch.no_grad():
        known = torch.tensor([label not in new for label in range(len(bias))], device=weight.device)
        told = vectors[(targets >= 0) & known[targets.clamp(min=0)]]
        size, middle = weight[known].norm(dim=1).mean(), told.mean(dim=0)
        spread = (told - middle).T @ (told - middle) / len(told)  # [hidden, hidden]
        spread += SHRINKAGE * spread.diagonal().mean() * torch.eye(len(spread), device=spread.device)

        def needed(its: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
            return ((its @ weight[known].T + bias[known]).amax(dim=1) - its @ row).mean()

        for label in new:
            its = vectors[targets == label]
            if len(its):
                direction = torch.linalg.solve(spread, its.mean(dim=0) - middle)
                row = size * torch.nn.functional.normalize(direction, dim=0)
                network.head.weight[columns.start + label] = row
                network.head.bias[columns.start + label] = (needed(its, row) + needed(told, row)) / 2


@dataclass(frozen=True)
class Feed:
    """How token ids reach a network: padded with what, on which device, multiplied how exactly."""

    fill: int
    device: torch.device
    precision: Precision

    def tensors(self, windows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask [n, t] of windows of token ids."""
        ids, mask = padded(windows, self.fill)
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    def autocast(self) -> torch.autocast:
        """bfloat16 where the hardware multiplies in it (2.5 times as fast on a CPU with avx512_bf16), else float32."""
        if self.precision != "auto":
            return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported())
        has = torch.cpu.get_capabilities()
        fast = has.get("avx512_bf16", False) or has.get("amx_bf16", False)
        return torch.autocast("cpu", torch.bfloat16, enabled=fast)

    def infer(self, forward: Forward, windows: Sequence[Sequence[int]]) -> torch.Tensor:
        """The rows of `forward` [n, width] for every window, in order, without gradients."""
        parts, order = [], []
        with torch.no_grad():
            for rows in length_sorted_batches([len(window) for window in windows], EMBED_TOKENS):
                with self.autocast():
                    parts.append(forward(*self.tensors([windows[row] for row in rows])).float())
                order += rows
        joined = torch.cat(parts)
        return torch.empty_like(joined).index_copy_(0, torch.tensor(order, device=self.device), joined)


def learned_weights(network: TextClassifier) -> dict[str, torch.Tensor]:
    """A copy of all weights that learn, by name."""
    return {name: weight.detach().clone() for name, weight in network.named_parameters() if weight.requires_grad}


def copied(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that no longer change with those they were copied from."""
    return {name: weight.clone() for name, weight in weights.items()}


def set_learned_weights(network: TextClassifier, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights that `learned_weights` gave back; those that do not learn are as they were."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in weights:
                weight.copy_(weights[name])


@contextmanager
def weights_of(network: TextClassifier, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The network with these weights instead of those it has, meanwhile; none change nothing."""
    own = learned_weights(network) if weights else {}
    set_learned_weights(network, weights)
    try:
        yield
    finally:
        set_learned_weights(network, own)


def follow(mean: dict[str, torch.Tensor], network: TextClassifier, decay: float, steps: int) -> None:
    """Move a running mean of the weights, in place, towards what they are after so many `steps`; an empty one starts.

    The first steps count less and less as the mean grows to its width (Polyak and Juditsky 1992; the ramp is Adam's).
    """
    if not mean:
        mean.update(learned_weights(network))
        return
    share = 1 - min(decay, (1 + steps) / (10 + steps))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in mean:
                mean[name].lerp_(weight, share)
