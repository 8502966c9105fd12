"""The Frechet distance against closed forms of Gaussians."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from antelope.benchmarks.frechet import frechet_distance


def features(mean: Tensor, root: Tensor, *, n: int = 200) -> Tensor:
    """`[n, F]` float64 whose own mean and unbiased covariance are exactly `mean` and `root root^T`."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T @ x / (n - 1)), x.T, upper=False
    )
    return mean + (root @ white).T


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_one_feature_by_hand() -> None:
    # Means 1 and 6, deviations sqrt(2) and 3 sqrt(2): 5^2 + (2 sqrt(2))^2.
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [9.0]])
    assert frechet_distance(a, b) == pytest.approx(33)


def test_independent_features_add_up() -> None:
    # (m_a - m_b)^2 + (s_a - s_b)^2 of each.
    mean, other = torch.tensor([[1.0, 2.0, 3.0], [1.5, 0.0, 3.0]], dtype=torch.float64)
    stddev, wider = torch.tensor([[1.0, 2.0, 0.5], [1.0, 5.0, 0.1]], dtype=torch.float64)
    a, b = features(mean, stddev.diag()), features(other, wider.diag(), n=300)
    assert frechet_distance(a, b) == pytest.approx(0.25 + 4 + 9 + 0.16, rel=1e-9)


def test_covariances_that_do_not_commute() -> None:
    mean = torch.randn(2, 5, dtype=torch.float64)
    root = torch.randn(2, 5, 5, dtype=torch.float64)
    a, b = (root[i] @ root[i].T for i in (0, 1))
    # Heusel et al.'s own form, by scipy's root of a matrix that is not symmetric.
    overlap = sqrtm((a @ b).numpy()).real.trace()
    expected = float((mean[0] - mean[1]).square().sum() + a.trace() + b.trace()) - 2 * overlap
    x, y = (features(mean[i], root[i]) for i in (0, 1))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)


def test_a_rotation_of_both_changes_nothing() -> None:
    x, y = torch.randn(100, 6).double(), torch.randn(80, 6).double() * 2 + 1
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())
    turned = frechet_distance(x @ rotation, y @ rotation)
    assert turned == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_a_set_is_no_distance_from_itself_also_with_features_that_are_always_zero() -> None:
    x = torch.cat([torch.randn(50, 4), torch.zeros(50, 60)], 1)  # Fewer rows than features.
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 64, rel=1e-9)


def test_small_differences_of_large_numbers_are_not_lost() -> None:
    x = features(torch.zeros(3).double(), torch.eye(3).double())
    shifted = frechet_distance((x + 1e4).float(), (x + 1e4 + 1).float())
    assert shifted == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize(("a", "b"), [((4, 3), (4, 2)), ((4,), (4,)), ((1, 3), (4, 3))])
def test_what_cannot_be_compared_is_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N, F\] and \[M, F\]|two rows"):
        frechet_distance(torch.rand(a), torch.rand(b))
