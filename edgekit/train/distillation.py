"""Knowledge distillation: the student learns the teacher's softened answers beside the labels.

    p = softmax(teacher / T), q = softmax(student / T)
    L = a T^2 KL(p || q) + (1 - a) CE(labels, student)

T^2 keeps the gradient of the first term the same size whatever T is (Hinton et al. 2015). Several teachers
are one: p is the mean of theirs. What has no classes is learned by its relative squared error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from edgekit.train.labels import Labels, cross_entropy


def soft_loss(
    student: torch.Tensor, teachers: Sequence[torch.Tensor], temperature: float = 4.0
) -> torch.Tensor:
    """T^2 KL of logits (N, classes, ...) from the mean of the teachers' softened probabilities.

    The mean over everything but the classes.
    """
    logs = [F.log_softmax(teacher / temperature, dim=1) for teacher in teachers]
    target = logs[0]
    if len(logs) > 1:
        target = torch.logsumexp(torch.stack(logs), dim=0) - math.log(len(logs))
    apart = F.kl_div(F.log_softmax(student / temperature, dim=1), target, reduction="sum", log_target=True)
    return temperature * temperature * apart / (student.numel() // student.shape[1])


def distillation_loss(
    student: torch.Tensor,
    teacher: torch.Tensor | Sequence[torch.Tensor],
    labels: torch.Tensor | Labels | None,
    temperature: float = 4.0,
    alpha: float = 0.7,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Scalar loss of logits (N, classes) against a teacher's, or several teachers', and labels (N,).

    Without labels the teachers are all there is to learn from, and alpha is 1.
    """
    teachers = [teacher] if isinstance(teacher, torch.Tensor) else teacher
    soft = soft_loss(student, teachers, temperature)
    if labels is None or alpha >= 1.0:
        return soft if labels is None else alpha * soft
    return alpha * soft + (1.0 - alpha) * cross_entropy(student, labels, label_smoothing)


def relative_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared error over the teacher's squared values, of the whole batch: 0 is equal, 1 as bad as zeros."""
    return (student - teacher).square().sum() / teacher.square().sum().clamp_min(1e-12)
