"""GPTQ: a weight's rounding is made up for by the weights that are rounded after it.

Of a filter w and the windows X that it is multiplied with, the error of the outputs is
(w - q) H (w - q)^T with H = X^T X. Weights are rounded one column after another, those of the largest
inputs first; what rounding a column adds to the outputs is taken out of the columns that are left, as
far as they can (Frantar et al. 2022, arXiv:2210.17323; Frantar and Alistarh 2022, arXiv:2208.11580).
"""

import torch
from torch import Tensor

DAMPING = (0.01, 0.1, 1.0)
"""Parts of H's mean diagonal that are added to its diagonal, until it has a Cholesky factor."""
BLOCK = 128
"""Columns after which those that are left are brought up to date."""
EDGE = 2.0**-20
"""Of a range: a weight so near its end is the one that the range was chosen by."""


@torch.no_grad()
def gptq(weight: Tensor, hessian: Tensor, scale: Tensor, largest: int) -> Tensor:
    """Return symmetric codes of `weight` (groups, filters, K), in its dtype, that err little under H.

    `hessian` (groups, K, K) is X^T X; `scale` has the shape of `weight`; codes lie within `largest`
    of 0. The weight that a scale was chosen by keeps its code, so that the range stays what it is. No
    filter errs more than by the nearest codes, which weights have whose inputs were always 0.

    >>> two = torch.tensor([[[0.4, 0.4, 3.0]]])
    >>> gptq(two, torch.ones(1, 3, 3) + 0.01 * torch.eye(3), torch.ones(1, 1, 3), 3)
    tensor([[[0., 1., 3.]]])
    """
    exact = weight / scale
    nearest = exact.round().clamp(-largest, largest)
    kept = torch.where(exact.abs() > largest * (1 - EDGE), nearest, torch.nan)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    order = diagonal.argsort(1, descending=True)
    sorted_by = order[:, None].expand_as(weight)
    first, steps, given = (part.gather(2, sorted_by) for part in (weight, scale, kept))
    inverse = _inverse_factor(_sorted(hessian, order).double()).to(weight.dtype)
    codes = _in_order(first, steps, given, inverse=inverse, largest=largest)
    codes = torch.zeros_like(weight).scatter_(2, sorted_by, codes)
    codes = torch.where((diagonal == 0)[:, None], nearest, codes)
    near, far = (_errors(weight - found * scale, hessian) for found in (nearest, codes))
    return torch.where((far < near)[..., None], codes, nearest)


def _errors(difference: Tensor, hessian: Tensor) -> Tensor:
    """Return the squared error of each filter's outputs."""
    return (difference @ hessian * difference).sum(2)


def _sorted(hessian: Tensor, order: Tensor) -> Tensor:
    rows = hessian.gather(1, order[:, :, None].expand_as(hessian))
    return rows.gather(2, order[:, None].expand_as(hessian))


def _in_order(weight: Tensor, scale: Tensor, kept: Tensor, inverse: Tensor, largest: int) -> Tensor:
    """Return the codes of columns from the first to the last; `kept` are those that are given."""
    codes = torch.empty_like(weight)
    for begin in range(0, weight.shape[2], BLOCK):
        block = slice(begin, min(begin + BLOCK, weight.shape[2]))
        left, factor = weight[..., block], inverse[:, block, block]
        errors = torch.zeros_like(left)
        for i in range(left.shape[2]):
            column = begin + i
            step, number = scale[..., column], left[..., i]
            free, given = (number / step).round().clamp(-largest, largest), kept[..., column]
            codes[..., column] = code = torch.where(given.isnan(), free, given)
            errors[..., i] = (number - code * step) / factor[:, i, i, None]
            left[..., i:] -= errors[..., i, None] * factor[:, None, i, i:]
        weight[..., block.stop :] -= errors @ inverse[:, block, block.stop :]
    return codes


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of a damped H.

    H = R R^T with R upper, a Cholesky factor from the last column to the first, has the inverse
    U^T U with U = R^-1.
    """
    mean = hessian.diagonal(dim1=1, dim2=2).mean(1)[:, None].clamp(min=torch.finfo().tiny)
    eye = torch.eye(hessian.shape[1]).to(hessian)
    for part in DAMPING:
        damped = hessian + torch.diag_embed((part * mean).expand(hessian.shape[:2]))
        factor, failed = torch.linalg.cholesky_ex(damped.flip(1, 2))
        if not failed.any():
            return torch.linalg.solve_triangular(factor.flip(1, 2), eye, upper=True)
    return eye.expand_as(hessian)
