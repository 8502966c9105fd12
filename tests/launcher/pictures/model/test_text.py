"""The text says as much as the picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from antelope.launcher.pictures.model.render import trace
from antelope.launcher.pictures.model.text import text


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.left, self.right = nn.Linear(8, 2), nn.Linear(8, 2)
        self.spare = nn.Linear(3, 3)

    def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden = self.body(obs["screen"])
        return {"move": self.left(hidden) + self.right(hidden)}


EXPECTED = """\
Net
88 parameters: 70 trained, 18 frozen

input   shape
--------------
screen  [2, 4]

output  shape   from
------------------------------
move    [2, 2]  +(left, right)

module  class       settings  output  parameters  share  from
---------------------------------------------------------------
body    Sequential                            40  45.5%
  0     Linear      4 → 8     [2, 8]          40  45.5%  screen
  1     ReLU                  [2, 8]                     body.0
left    Linear      8 → 2     [2, 2]          18  20.5%  body.1
right   Linear      8 → 2     [2, 2]  18, frozen  20.5%  body.1

not used  class   parameters
----------------------------
spare     Linear          12
"""


def test_it_is_a_tree_with_totals() -> None:
    net = Net()
    net.right.requires_grad_(False)
    said = text(trace(net, ({"screen": torch.ones(2, 4)},)), title="Net")
    assert said == EXPECTED


def test_an_assumed_link_has_a_question_mark() -> None:
    class Leaves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tensor(self.a(x).tolist()))

    said = text(trace(Leaves(), (torch.ones(2, 4),)), title="Net")
    assert "a?" in said
    assert "assumed, not traced" in said
