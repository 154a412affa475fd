"""Preprocessing as an app developer reads it: settings -> steps, each with its numbers and one sentence."""

from __future__ import annotations

from typing import Any

Step = dict[str, Any]


def steps(settings: dict[str, Any] | None, tensor: dict[str, Any]) -> list[Step]:
    """What to do with a picture, in order.

    Args:
        settings: resolution, resize, interpolation, mean, std, orientation; None when the images came
            preprocessed.
        tensor: the model's input: dtype, shape, and for integers scale and zero_point.
    """
    out: list[Step] = []

    def add(step: str, words: str, **numbers: Any) -> None:
        out.append({"step": step, **numbers, "words": words})

    if settings is None:
        add(
            "preprocessed", "The calibration images came preprocessed; feed the model what it was trained on."
        )
    else:
        side, short = settings["resolution"], settings["resize"]
        mean, std = list(settings["mean"]), list(settings["std"])
        turned = settings.get("orientation", "ignored")
        how = {
            "ignored": "an EXIF orientation is ignored.",
            "applied": "then turn it as its EXIF orientation says.",
        }[turned]
        add("rgb", f"Decode to 8-bit RGB; {how}", orientation=turned)
        add(
            "resize",
            f"Resize so that the shorter side is {short} pixels, {settings['interpolation']}, antialiased.",
            shorter_side=short,
            interpolation=settings["interpolation"],
            antialias=True,
        )
        add("center_crop", f"Cut out the central {side} x {side} pixels.", size=side)
        add("scale", "Divide by 255, so that values lie in 0..1.", factor=1 / 255)
        add(
            "normalize",
            f"Per channel R, G, B: subtract {_list(mean)}, then divide by {_list(std)}.",
            mean=mean,
            std=std,
        )
        layout = tensor.get("layout") or _layout(tensor["shape"])
        add("layout", f"Arrange as {layout}, shape {tensor['shape']}.", layout=layout, shape=tensor["shape"])
    return out + quantization(tensor)


def quantization(tensor: dict[str, Any], name: str = "") -> list[Step]:
    """How real values become the tensor's integers; nothing for a float tensor. name: said in front."""
    if tensor.get("scale") is not None:
        scale, zero_point, dtype = tensor["scale"], tensor["zero_point"], tensor["dtype"]
        low, high = _limits(dtype)
        shift = f" {'-' if zero_point < 0 else '+'} {abs(zero_point)}" if zero_point else ""
        words = f"{name}Quantize: round(value / {scale!r}){shift}, clamped to {low}..{high}, as {dtype}."
        found = {"scale": scale, "zero_point": zero_point, "dtype": dtype}
        return [{"step": "quantize", **found, "words": words}]
    return []


def _limits(dtype: str) -> tuple[int, int]:
    bits = int(dtype.lstrip("uint"))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _layout(shape: list[int]) -> str:
    return "NCHW" if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3) else "NHWC"


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
