"""Mean intersection over union of the classes of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mean_iou(counts: Tensor) -> float:
    """Mean over classes of intersection over union, from counts of pixels, int64 `[n, n]`.

        IoU_c = counts[c, c] / (pixels of class c + pixels predicted as c - counts[c, c])

    Source: Everingham et al. (2010), the Pascal VOC challenge, section 4.3. Classes that no pixel has, and
    none is predicted to have, are left out.

    Args:
        counts: By class (row) and prediction (column), of all held-out images together.

    Returns:
        In [0, 1]; NaN without pixels.

    >>> import torch
    >>> mean_iou(torch.tensor([[3, 1], [0, 4]]))
    0.775
    """
    both = counts.diagonal().double()
    either = counts.sum(0).double() + counts.sum(1).double() - both
    return float((both / either)[either > 0].mean())
