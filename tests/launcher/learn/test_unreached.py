"""Parameters that no loss reaches are said once, also after a resumption."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from antelope.launcher.learn.unreached import Unreached


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.left = nn.Linear(2, 1), nn.Linear(2, 1)


def after_updates(net: Net, n: int, *, forever: bool = False) -> Unreached:
    unreached = Unreached(net, waits=True, forever=forever)
    net.used(torch.ones(1, 2)).sum().backward()
    for _ in range(n):
        unreached.look()
    return unreached


def test_after_a_hundred_updates_they_are_named() -> None:
    with pytest.warns(UserWarning, match=r"No loss reaches `left.weight`, `left.bias` of Net"):
        after_updates(Net(), 100)


def test_where_more_tasks_may_come_only_the_end_tells() -> None:
    unreached = after_updates(Net(), 200, forever=True)
    with pytest.warns(UserWarning, match="No loss reaches"):
        unreached.warn()


def test_a_resumed_run_goes_on_counting() -> None:
    state, net = after_updates(Net(), 60).state_dict(), Net()
    resumed = Unreached(net, waits=True, forever=False)
    resumed.load_state_dict(state)
    for _ in range(39):
        resumed.look()
    with pytest.warns(UserWarning, match=r"`left.weight`, `left.bias` of Net"):
        resumed.look()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.warn()


def test_nothing_is_said_before_the_first_update() -> None:
    unreached = Unreached(Net(), waits=True, forever=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        unreached.look()
        unreached.warn()
    assert not said
