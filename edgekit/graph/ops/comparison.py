"""Comparisons, choice and the places of the largest. A truth is 1.0, a falsehood 0.0, a place its index."""

from __future__ import annotations

import torch

from edgekit.graph.ops.row import FREE, PLACE, Fixed, Same, Tensor, op

# both ends are integers of the grid
_TRUTH = Fixed(0.0, 1.0, int8=(1 / 255, -128), int16=(1 / 32767, 0))


@op(channels="join", ranges=_TRUTH, layout="any", dtypes="floats")
def greater(a: Tensor, b: Tensor) -> Tensor:
    """a > b."""
    return torch.gt(a, b).to(a.dtype)


@op(channels="join", ranges=_TRUTH, layout="any", dtypes="floats")
def greater_equal(a: Tensor, b: Tensor) -> Tensor:
    """a >= b."""
    return torch.ge(a, b).to(a.dtype)


@op(channels="join", ranges=_TRUTH, layout="any", dtypes="floats")
def equal(a: Tensor, b: Tensor) -> Tensor:
    """a == b."""
    return torch.eq(a, b).to(a.dtype)


@op(channels="join", ranges=FREE, layout="any", dtypes="floats", homogeneous=True)
def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a where the condition is not 0, else b; the two may lie on different grids."""
    return torch.where(condition != 0, a, b)


@op(channels="along", ranges=PLACE, layout="any", dtypes="floats")
def argmax(x: Tensor, *, dim: int, keepdim: bool) -> Tensor:
    """The index of the largest number, of equals the first."""
    return torch.argmax(x, dim, keepdim).to(x.dtype)


@op(
    channels="along",
    ranges=Same("TOPK_V2 compares integers"),
    layout="any",
    dtypes="floats",
    movement="pick",
    homogeneous=True,
)
def topk(x: Tensor, *, k: int, dim: int) -> Tensor:
    """The k largest numbers in falling order."""
    return torch.topk(x, k, dim).values


@op(channels="along", ranges=PLACE, layout="any", dtypes="floats")
def topk_indices(x: Tensor, *, k: int, dim: int) -> Tensor:
    """The indices of the k largest numbers in falling order, of equals the first."""
    return torch.sort(x, dim=dim, descending=True, stable=True).indices.narrow(dim, 0, k).to(x.dtype)
