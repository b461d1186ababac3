"""What training minimises: one value an example, so that the caller decides what each of them counts."""

import torch

from models.lessons import UNLABELLED


def classification_loss(
    logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor, label_smoothing: float, focal_gamma: float
) -> torch.Tensor:
    """Weighted cross-entropy [n] of logits [n, labels] with targets [n]; 0 where the target is UNLABELLED.

    `label_smoothing` in [0, 1) spreads that share of a target evenly over all labels (Szegedy et al. 2016).
    `focal_gamma` >= 0 scales an example by (1 - p(target)) ** gamma: the easy counts less (Lin et al. 2017).
    `class_weights` [labels] scale an example by its own label's weight.
    """
    log_p = torch.log_softmax(logits, dim=1)  # [n, labels]
    labelled = targets != UNLABELLED
    columns = targets.clamp(min=0)
    log_p_target = log_p.gather(1, columns.unsqueeze(1)).squeeze(1)  # [n]
    loss = -(1 - label_smoothing) * log_p_target - label_smoothing * log_p.mean(dim=1)
    if focal_gamma:
        loss = loss * (1 - log_p_target.exp()).pow(focal_gamma)
    return loss * class_weights[columns] * labelled


def distillation_loss(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence [n] from a teacher's probabilities [n, labels] to logits [n, labels], both softened.

    p ** (1 / T), normalised, is what the teacher's logits divided by T would have given, so its plain probabilities are
    enough. The factor T ** 2 keeps the gradient's size whatever the temperature (Hinton, Vinyals and Dean 2015).
    """
    softened = torch.softmax(teacher.clamp(min=1e-8).log() / temperature, dim=1)
    log_q = torch.log_softmax(logits / temperature, dim=1)
    divergence = (softened * (softened.log() - log_q)).sum(dim=1)
    return temperature**2 * divergence


def disagreement(logits: torch.Tensor) -> torch.Tensor:
    """Symmetric KL divergence [n] of two readings of n texts, logits [2 n, labels]: all of one, then of the other.

    Readings differ by their dropout; that they agree keeps a model from accidents (R-Drop, Liang et al. 2021).
    """
    log_p, log_q = torch.log_softmax(logits, dim=1).chunk(2)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1) / 2


def contrastive_loss(vectors: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss [n] of text vectors [n, hidden] with targets [n] (Khosla et al. 2020, L_out).

    Each text shall be nearer, by cosine, to the batch's texts of its label than to the others. A text without a partner
    in the batch costs 0.
    """
    directions = torch.nn.functional.normalize(vectors, dim=1)
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    similarity = (directions @ directions.T / temperature).masked_fill(itself, -torch.inf)
    log_p = torch.log_softmax(similarity, dim=1).masked_fill(itself, 0.0)
    partners = (targets.unsqueeze(0) == targets.unsqueeze(1)) & ~itself
    return -(log_p * partners).sum(dim=1) / partners.sum(dim=1).clamp(min=1)


def adversarial_step(
    embedded: torch.Tensor, gradient: torch.Tensor, attention_mask: torch.Tensor, epsilon: float
) -> torch.Tensor:
    """The change [n, t, hidden] of embedded tokens that raises the loss most (fast gradient, Miyato et al. 2017).

    It goes along the gradient; its length is `epsilon` of the text's own embedding, so that the knob means the same for
    every encoder and length. Padding stays as it is.
    """
    mask = attention_mask.unsqueeze(-1).to(embedded.dtype)
    size = (embedded * mask).flatten(1).norm(dim=1)  # [n]
    direction = gradient * mask
    length = direction.flatten(1).norm(dim=1).clamp(min=1e-12)
    step: torch.Tensor = direction * (epsilon * size / length).view(-1, 1, 1)
    return step
