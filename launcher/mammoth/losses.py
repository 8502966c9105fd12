"""Losses of contrastive learning and of distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SupConLoss(nn.Module):
    """Pulls features of one class together, and pushes all others away.

        L_i = -1/|P(i)| sum_{p in P(i)} log( exp(z_i z_p / t) / sum_{a != i} exp(z_i z_a / t) )

    Source: Khosla et al. (2020), arXiv 2004.11362, eq. 2. Without labels it is SimCLR's loss, where the
    views of one example are one class (Chen et al., 2020, arXiv 2002.05709).

    Args:
        temperature: float, `t`.
        contrast_mode: Which features are anchors `i`: `all`, or `one`: those of the first view.
        base_temperature: float; the loss is scaled by `temperature / base_temperature`.
        reduction: `mean` over anchors, or `sum`: their sum divided by the views of an anchor.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        contrast_mode: str = "all",
        base_temperature: float = 0.07,
        reduction: str = "mean",
    ):
        super().__init__()
        if contrast_mode not in ("all", "one"):
            raise ValueError(f"SupConLoss: contrast_mode={contrast_mode!r} must be 'all' or 'one'.")
        self.temperature, self.base_temperature = temperature, base_temperature
        self.contrast_mode, self.reduction = contrast_mode, reduction

    def forward(
        self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            features: float `[B, views, ...]`.
            labels: `[B]`; rows with equal labels are pulled together.
            mask: `[B, B]` instead of labels: which rows are pulled to which.

        Raises:
            ValueError: If the shapes do not fit, or both are given.
        """
        if features.dim() < 3:
            raise ValueError(
                f"SupConLoss needs features [B, views, ...], not {list(features.shape)}."
            )
        if labels is not None and mask is not None:
            raise ValueError("SupConLoss: pass labels or a mask, not both.")
        rows, views = features.shape[:2]
        if labels is not None:
            label = labels.flatten()
            if len(label) != rows:
                raise ValueError(f"SupConLoss: {len(label)} labels for {rows} rows of features.")
            mask = label[:, None] == label
        elif mask is None:
            mask = torch.eye(rows, device=features.device)
        every = features.flatten(2).transpose(0, 1).flatten(0, 1)  # (views * B, D), view by view.
        anchors = every if self.contrast_mode == "all" else every[:rows]  # (A, D)
        itself = torch.eye(len(anchors), len(every), dtype=torch.bool, device=every.device)
        similarity = anchors @ every.T / self.temperature  # (A, views * B)
        # `logsumexp`, since exponents of 1/0.07 overflow in half precision.
        to_others = similarity.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
        positive = mask.to(every).tile(len(anchors) // rows, views).masked_fill(itself, 0)
        loss = (positive * (to_others - similarity)).sum(1) / positive.sum(1)  # (A,)
        loss = loss * (self.temperature / self.base_temperature)
        return loss.mean() if self.reduction == "mean" else loss.sum() * rows / len(anchors)


class SPKDLoss(nn.Module):
    """Difference between a teacher's and a student's similarities of the rows of a batch.

    Source: Tung and Mori (2019), "Similarity-Preserving Knowledge Distillation", arXiv 1907.09682, eq. 4.

    Args:
        reduction: `batchmean` divides by the squared batch size; anything else is the sum.
    """

    def __init__(self, reduction: str = "batchmean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, teacher_outputs: Tensor, student_outputs: Tensor) -> Tensor:
        """The loss of outputs `[B, ...]`."""
        teacher, student = (
            # In the 1-norm, as in Mammoth; the paper uses the 2-norm.
            F.normalize(flat @ flat.T, 1)
            for flat in (teacher_outputs.flatten(1), student_outputs.flatten(1))
        )
        loss = (teacher - student).square().sum()
        return loss / len(teacher) ** 2 if self.reduction == "batchmean" else loss
