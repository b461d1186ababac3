import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from models.network import (
    Feed,
    TextClassifier,
    follow,
    imprint,
    learned_weights,
    parameter_groups,
    set_head_to_centroids,
    set_learning_rates,
    weights_of,
)
from models.train_settings import TrainSettings


@pytest.fixture
def network() -> TextClassifier:
    torch.manual_seed(3)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    return TextClassifier(BertModel(config, add_pooling_layer=False), 16, 5, dropout=0.0)


def rates_of(network: TextClassifier, settings: TrainSettings, encoder: float, head: float) -> dict[str, float]:
    optimizer = torch.optim.AdamW(parameter_groups(network, settings))
    set_learning_rates(optimizer, encoder, head)
    names = {id(weight): name for name, weight in network.named_parameters()}
    return {names[id(weight)]: group["lr"] for group in optimizer.param_groups for weight in group["params"]}


def test_lower_layers_learn_more_slowly_and_the_heads_at_their_own_rate(network: TextClassifier) -> None:
    rates = rates_of(network, TrainSettings(layer_decay=0.5), 0.8, 0.3)
    assert len(rates) == len(list(network.parameters()))
    for layer, rate in enumerate((0.2, 0.4, 0.8)):
        its = [rates[name] for name in rates if f".layer.{layer}." in name]
        assert its == pytest.approx([rate] * len(its))
    assert rates["encoder.embeddings.word_embeddings.weight"] == pytest.approx(0.1)
    assert rates["head.weight"] == rates["head.bias"] == 0.3
    assert set(rates_of(network, TrainSettings(), 0.8, 0.3).values()) == {0.8, 0.3}


def test_what_is_frozen_does_not_learn_and_biases_do_not_decay(network: TextClassifier) -> None:
    network.encoder.requires_grad_(False)
    network.encoder.get_submodule("encoder.layer.2").requires_grad_(True)
    groups = parameter_groups(network, TrainSettings(weight_decay=0.1))
    learning = {id(weight) for group in groups for weight in group["params"]}
    assert learning == {id(weight) for weight in network.parameters() if weight.requires_grad}
    for group in groups:
        assert {weight.ndim > 1 for weight in group["params"]} == {group["weight_decay"] > 0}


def test_a_head_that_starts_from_centroids_knows_its_labels(network: TextClassifier) -> None:
    torch.manual_seed(4)
    directions, targets = torch.randn(3, 16), torch.arange(60) % 3
    vectors = directions[targets] * 5 + torch.randn(60, 16) * 0.3
    before = network.head.weight[:1].clone()
    set_head_to_centroids(network, slice(1, 5), vectors, torch.where(torch.arange(60) < 50, targets, -1))
    logits = network.head(vectors)[:, 1:5]
    assert (logits[:, :3].argmax(dim=1) == targets).all()
    assert torch.equal(network.head.weight[:1], before)  # another task's
    assert 5 < logits[:, :3].max(dim=1).values.mean() < 11


def test_an_imprinted_label_takes_its_own_texts_and_leaves_the_others_theirs(network: TextClassifier) -> None:
    torch.manual_seed(4)
    directions, targets = torch.randn(4, 16), torch.arange(80) % 4
    vectors = directions[targets] * 5 + torch.randn(80, 16) * 0.3
    columns = slice(1, 5)
    set_head_to_centroids(network, columns, vectors, torch.where(targets < 3, targets, -1))
    before = network.head.weight[:4].clone()
    few = (targets < 3) | (torch.arange(80) < 20)  # five examples of the new label
    imprint(network, columns, [3], vectors[few], targets[few])
    assert (network.head(vectors)[:, columns].argmax(dim=1) == targets).all()
    assert torch.equal(network.head.weight[:4], before)


def test_inference_keeps_the_order_and_pads_without_a_trace(network: TextClassifier) -> None:
    network.eval()
    rng = np.random.default_rng(5)
    windows = [rng.integers(1, 50, size=length).tolist() for length in (7, 2, 30, 2, 11)]
    feed = Feed(0, torch.device("cpu"), "float32")
    rows = feed.infer(network, windows)
    for window, row in zip(windows, rows, strict=True):
        torch.testing.assert_close(feed.infer(network, [window])[0], row, rtol=1e-4, atol=1e-5)


def test_embedded_tokens_give_the_vectors_that_ids_give(network: TextClassifier) -> None:
    network.eval()
    ids, mask = Feed(0, torch.device("cpu"), "float32").tensors([[3, 4, 5], [6]])
    torch.testing.assert_close(network.pooled_from(network.embedded(ids), mask), network.pooled(ids, mask))


def test_precision_is_as_asked_for(network: TextClassifier) -> None:
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        feed = Feed(0, torch.device("cpu"), precision)  # type: ignore[arg-type]
        with feed.autocast(), torch.no_grad():
            assert network.head(torch.ones(1, 16)).dtype == dtype


def test_weights_are_others_only_meanwhile(network: TextClassifier) -> None:
    own = learned_weights(network)
    with weights_of(network, {name: its + 1 for name, its in own.items()}):
        assert all(torch.equal(its, own[name] + 1) for name, its in learned_weights(network).items())
    with weights_of(network, {}):
        assert all(torch.equal(its, own[name]) for name, its in learned_weights(network).items())
    assert all(torch.equal(its, own[name]) for name, its in learned_weights(network).items())


def test_the_running_mean_forgets_its_start_and_smooths_what_swings(network: TextClassifier) -> None:
    start = network.head.bias.detach().clone()
    mean: dict[str, torch.Tensor] = {}
    follow(mean, network, 0.9, 0)
    torch.testing.assert_close(mean["head.bias"], start)
    for step in range(1, 101):
        with torch.no_grad():
            network.head.bias.copy_(torch.full_like(start, 5.0 + (-1) ** step))
        follow(mean, network, 0.9, step)
    assert (mean["head.bias"] - 5.0).abs().max() < 0.1  # steps of 1 up and down, 100 of them against a width of 10
    assert torch.equal(network.head.bias.detach(), torch.full_like(start, 6.0))
