"""Knowledge distillation: the student learns the teacher's softened answers beside the labels.

    p = softmax(teacher / T), q = softmax(student / T)
    L = a T^2 KL(p || q) + (1 - a) CE(labels, student)

T^2 keeps the gradient of the first term the same size whatever T is (Hinton et al. 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 4.0,
    alpha: float = 0.7,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Scalar loss of logits (N, classes) against teacher logits (N, classes) and labels (N,)."""
    from torch.nn import functional as F

    soft = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(student, labels, label_smoothing=label_smoothing)
    return alpha * temperature * temperature * soft + (1.0 - alpha) * hard
