"""How far outputs are from those of the float graph, image by image, and which of two is nearer.

Three figures speak for a candidate: SQNR pooled over all values (ruled by the worst images), the median and
the mean over images (ruled by ordinary ones). It is better by the least of the three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgekit.quantize.observers import trim_count

Tensor = torch.Tensor
LOST_DB = 6.0  # an error of half the answer and more: the image is lost
_LEAST_SIGNAL, _LEAST_NOISE = 1e-4, 1e-12  # of the mean signal of an image: keeps every ratio finite
FIGURES = ("pooled", "median", "mean")


@dataclass(frozen=True)
class Judged:
    """signal, noise: (N,), the power of each image's outputs and of their error."""

    signal: Tensor
    noise: Tensor

    def db(self) -> Tensor:
        """SQNR of each image in dB: (N,)."""
        mean = self.signal.mean().clamp_min(1e-300)
        return 10.0 * torch.log10(
            self.signal.clamp_min(_LEAST_SIGNAL * mean) / self.noise.clamp_min(_LEAST_NOISE * mean)
        )

    def figures(self) -> dict[str, float]:
        """FIGURES in dB."""
        return {"pooled": self._pooled(), "median": _median(self.db()), "mean": float(self.db().mean())}

    def gains(self, plain: Judged) -> dict[str, float]:
        """FIGURES of this less those of `plain` on the same images.

        Images that both lose decide nothing, though their error may outweigh all others': as many of them as
        calibration may outvote are left out of the pooled figure.
        """
        lost = torch.maximum(self.db(), plain.db()) < LOST_DB
        worst = torch.where(lost, torch.minimum(self.noise, plain.noise), -1.0).argsort(descending=True)
        keep = torch.ones(len(lost), dtype=torch.bool)
        for image in worst[: trim_count(len(lost))].tolist():
            keep[image] = not lost[image]
        one, other = (Judged(j.signal[keep], j.noise[keep]) for j in (self, plain))
        mine, theirs = self.figures(), plain.figures()
        return {
            "pooled": one._pooled() - other._pooled(),
            "median": mine["median"] - theirs["median"],
            "mean": mine["mean"] - theirs["mean"],
        }

    def first(self, count: int) -> Judged:
        return Judged(self.signal[:count], self.noise[:count])

    def __add__(self, more: Judged) -> Judged:
        """Those of further images."""
        return Judged(torch.cat([self.signal, more.signal]), torch.cat([self.noise, more.noise]))

    def __len__(self) -> int:
        return len(self.signal)

    def _pooled(self) -> float:
        signal = self.signal.sum().clamp_min(1e-300)
        return float(10.0 * torch.log10(signal / self.noise.sum().clamp_min(_LEAST_NOISE * signal)))


def judge(wanted: list[Tensor], made: list[Tensor], power: list[float]) -> Judged:
    """What is left between two sets of outputs.

    Args:
        wanted, made: (N, values) an output.
        power: of each output; it counts relative to that, so that small outputs count like large ones.
    """
    signal = torch.zeros(len(wanted[0]), dtype=torch.float64)
    noise = torch.zeros_like(signal)
    for a, b, unit in zip(wanted, made, power, strict=True):
        signal += a.double().square().sum(1) / unit
        noise += (a.double() - b.double()).square().sum(1) / unit
    return Judged(signal, noise)


def _median(db: Tensor) -> float:
    """Of an even number the mean of the two in the middle."""
    return float(db.quantile(0.5))
