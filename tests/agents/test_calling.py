"""A module is called with the lengths of sequences if its `forward` names them."""

import pytest
import torch
from torch import nn

from antelope.agents.calling import call, output_of, takes_steps
from antelope.replay import Batch, Ragged
from antelope.replay.padding import steps_of


class Given(nn.Module):
    """Returns what it was called with."""

    def forward(self, obs, **given):
        return obs, given


class WithLength(nn.Module):
    def forward(self, obs, length):
        return obs, {"length": length}


class WithBoth(nn.Module):
    def forward(self, obs, mask=None, length=None):
        return obs, {"mask": mask, "length": length}


class WithTask(nn.Module):
    def forward(self, obs, task, mask):
        return obs, {"task": task, "mask": mask}


@pytest.fixture
def batch():
    obs = Ragged(torch.arange(5), torch.tensor([0, 2, 5])).take(torch.tensor([0, 1]))
    steps = steps_of(obs)
    return Batch(obs=obs, length=steps.length, mask=steps.mask)


@pytest.mark.parametrize(
    ("module", "names"), [(Given, ()), (WithLength, ("length",)), (WithBoth, ("mask", "length"))]
)
def test_a_forward_receives_the_lengths_that_it_names_and_no_others(module, names, batch):
    obs, given = output_of(module(), batch)
    assert obs is batch.obs
    assert given == {name: batch[name] for name in names}
    assert takes_steps(module()) is bool(names)


def test_a_forward_with_defaults_is_called_without_lengths_on_other_data():
    assert output_of(WithBoth(), Batch(obs=torch.zeros(2)))[1] == {"mask": None, "length": None}


def test_further_arguments_come_before_the_lengths(batch):
    assert call(WithTask(), batch.obs, 3)[1] == {"task": 3, "mask": batch.mask}


def test_a_module_without_forward_takes_no_lengths():
    assert not takes_steps(nn.Module())
    assert not takes_steps(nn.Linear(1, 1))
