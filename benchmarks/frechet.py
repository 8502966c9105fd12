"""Distance of two sets of features, each treated as a Gaussian: a measure of generated data."""

import torch
from torch import Tensor


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Frechet (Wasserstein-2) distance of the Gaussians with the sets' means and covariances.

        d^2 = |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)

    Source: Heusel et al. (2017), arXiv 1706.08500, eq. 6, whose trace of (C_a C_b)^1/2 is the same
    number: the two products have the same eigenvalues. This one is symmetric, so an eigendecomposition
    gives its root even if a covariance is singular.

    Args:
        features_a, features_b: `[N, F]` and `[M, F]`, converted to float64; covariances are the
            unbiased ones. The distance is biased upwards for few rows: compare only distances between
            sets of the same sizes.

    Raises:
        ValueError: If the sets differ in their number of features, or have fewer than two rows.

    >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
    9.0
    """
    if features_a.dim() != 2 or features_b.dim() != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(
            "Two sets of features must be [N, F] and [M, F]; these are "
            f"{list(features_a.shape)} and {list(features_b.shape)}."
        )
    if min(len(features_a), len(features_b)) < 2:
        raise ValueError("A covariance needs at least two rows of features.")
    a, b = features_a.detach().double(), features_b.detach().double()
    root, covariance = _root(_covariance(a)), _covariance(b)
    overlap = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + a.var(0).sum() + b.var(0).sum() - 2 * overlap)


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric positive semidefinite `[F, F]` whose square it is."""
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding leaves eigenvalues of a singular matrix a little below zero.
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
