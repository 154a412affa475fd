"""Labels and their cross-entropy, with mixup: images and labels blended in pairs (Zhang et al. 2018).

In: inputs of a batch, alpha of the Beta distribution. Out: the inputs blended with those of a neighbour in
the batch, all inputs of an image by the same share. torchvision's MixUp knows one input of classified images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from edgekit.errors import DataError

_VOID = -100  # what F.cross_entropy leaves out


@dataclass(frozen=True)
class Labels:
    """Labels int64 (N, ...) of a batch; with mixup also those of each image's partner.

    share: of the first in the blend.
    """

    own: torch.Tensor
    partner: torch.Tensor | None = None
    share: float = 1.0


def mix(
    inputs: tuple[torch.Tensor, ...], labels: torch.Tensor | None, alpha: float
) -> tuple[tuple[torch.Tensor, ...], Labels | None]:
    """Each image blended with the one before it; the share is drawn from Beta(alpha, alpha), 0 for none."""
    if alpha <= 0:
        return inputs, None if labels is None else Labels(labels)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    blended = tuple(share * array + (1.0 - share) * array.roll(1, 0) for array in inputs)
    return blended, None if labels is None else Labels(labels, labels.roll(1, 0), share)


def cross_entropy(
    logits: torch.Tensor, labels: Labels | torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy of logits (N, classes, ...); of blended labels the same blend.

    Pixels of a label map whose class is none of the network's (255, say) do not count.
    Raises: DataError for labels that do not belong to these logits.
    """
    if isinstance(labels, torch.Tensor):
        labels = Labels(labels)

    def of(classes: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, _fitting(classes, logits), label_smoothing=smoothing)

    if labels.partner is None:
        return of(labels.own)
    return labels.share * of(labels.own) + (1.0 - labels.share) * of(labels.partner)


def _fitting(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    count = logits.shape[1] if logits.ndim > 1 else 0
    if labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise DataError(
            f"train: labels {tuple(labels.shape)} for outputs {tuple(logits.shape)}: "
            "(N,) for logits (N, classes), (N, H, W) for (N, classes, H, W), or a loss of your own"
        )
    outside = (labels < 0) | (labels >= count)
    if labels.ndim > 1:
        return labels.masked_fill(outside, _VOID)
    if bool(outside.any()):
        wrong = int(labels[outside][0])
        raise DataError(f"train: label {wrong} for a model of {count} classes: from 0 to {count - 1}")
    return labels
