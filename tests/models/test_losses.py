import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.lessons import UNLABELLED
from models.losses import adversarial_step, classification_loss, contrastive_loss, disagreement, distillation_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0], [1.0, 1.0, 1.0]])
TARGETS = torch.tensor([0, 1, 2])
EVEN = torch.ones(3)


def test_plain_and_smoothed_cross_entropy_are_those_of_torch() -> None:
    for smoothing in (0.0, 0.1):
        expected = cross_entropy(LOGITS, TARGETS, reduction="none", label_smoothing=smoothing)
        torch.testing.assert_close(classification_loss(LOGITS, TARGETS, EVEN, smoothing, 0.0), expected)


def test_class_weights_scale_the_examples_of_a_label() -> None:
    plain = classification_loss(LOGITS, TARGETS, EVEN, 0.05, 0.0)
    weighted = classification_loss(LOGITS, TARGETS, torch.tensor([1.0, 2.0, 0.5]), 0.05, 0.0)
    torch.testing.assert_close(weighted, plain * torch.tensor([1.0, 2.0, 0.5]))


def test_focal_loss_is_the_formula_of_its_paper() -> None:
    p = math.exp(2.0) / (math.exp(2.0) + math.exp(-1.0) + math.exp(0.5))
    found = classification_loss(LOGITS[:1], TARGETS[:1], EVEN, 0.0, 2.0).item()
    assert found == pytest.approx(-((1 - p) ** 2) * math.log(p), rel=1e-5)


def test_an_example_without_a_label_costs_nothing() -> None:
    targets = torch.tensor([0, UNLABELLED, 2])
    found = classification_loss(LOGITS, targets, EVEN, 0.1, 1.0)
    assert found[1] == 0
    assert (found[[0, 2]] > 0).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_plain_probabilities_are_softened_as_the_teachers_logits_would_be(temperature: float) -> None:
    teacher = torch.tensor([[1.0, 0.0, -1.0], [0.3, 0.1, 0.0], [4.0, 0.0, 2.0]])
    p = torch.softmax(teacher / temperature, dim=1)
    log_q = torch.log_softmax(LOGITS / temperature, dim=1)
    expected = temperature**2 * (p * (p.log() - log_q)).sum(dim=1)
    found = distillation_loss(LOGITS, torch.softmax(teacher, dim=1), temperature)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(distillation_loss(teacher, torch.softmax(teacher, dim=1), temperature), torch.zeros(3))


def test_a_teacher_that_is_certain_gives_finite_gradients() -> None:
    logits = LOGITS.clone().requires_grad_()
    torch.autograd.backward(distillation_loss(logits, torch.eye(3), 2.0).sum())
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_two_readings_disagree_by_the_divergence_both_ways() -> None:
    first, second = LOGITS, torch.flip(LOGITS, dims=[1])
    p, q = torch.softmax(first, dim=1), torch.softmax(second, dim=1)
    expected = ((p * (p / q).log()).sum(dim=1) + (q * (q / p).log()).sum(dim=1)) / 2
    torch.testing.assert_close(disagreement(torch.cat([first, second])), expected)
    torch.testing.assert_close(disagreement(torch.cat([first, first + 1.0])), torch.zeros(3))  # a shift says nothing


def test_contrast_is_the_formula_of_its_paper_and_wants_labels_together() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 2.0], [0.0, 1.0]])
    targets = torch.tensor([0, 0, 1, 2])
    found = contrastive_loss(vectors, targets, 0.5)
    cosines = [0.8, 0.0, 0.0]  # of the first to the three others
    expected = -(0.8 / 0.5) + math.log(sum(math.exp(cosine / 0.5) for cosine in cosines))
    assert found[0].item() == pytest.approx(expected, rel=1e-5)
    assert found[2:].tolist() == [0.0, 0.0]  # without a partner
    nearer = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 2.0], [0.0, 1.0]])
    assert contrastive_loss(nearer, targets, 0.5)[0] < found[0]


def test_the_adversarial_step_follows_the_gradient_for_its_share_and_leaves_padding_alone() -> None:
    torch.manual_seed(0)
    embedded, gradient = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    step = adversarial_step(embedded, gradient, mask, 0.25)
    assert step[1, 2:].abs().max() == 0
    for text, length in enumerate((4, 2)):
        own, its = step[text, :length], gradient[text, :length]
        assert own.norm().item() == pytest.approx(0.25 * embedded[text, :length].norm().item(), rel=1e-5)
        assert torch.cosine_similarity(own.flatten(), its.flatten(), dim=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(adversarial_step(embedded, torch.zeros_like(gradient), mask, 0.25)).all()
