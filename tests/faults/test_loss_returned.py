"""Row 19: a `learn` that returns no loss, or one that cannot be learnt from, is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """\
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs):
        return self.layer(obs.flatten(1))

    def learn(self, replay):
        batch = next(replay)
        loss = F.cross_entropy(self(batch.obs), batch.label, reduction="none")
        return {returned}
"""


@pytest.mark.row(19)
@pytest.mark.parametrize(
    ("returned", "code", "said"),
    [
        ("loss", 2, "Model.learn returned a tensor of shape [32]. Return a scalar loss"),
        ("loss.mean().detach()", 2, "without a graph: nothing to back-propagate. It was detached"),
        ("loss.mean().item()", 2, "Model.learn returned a float"),
        ("None", 0, "Nothing was trained: Model.learn returned no loss, and no parameter"),
    ],
)
def test_row_19_what_learn_returns_is_named(
    returned: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(MODEL.format(returned=returned))
    command = "from antelope.launcher.ml import main; main()"
    words = (
        "model=Model dataset=Digits train_steps=3 eval_every=10 progress=false plot=false path=run"
    )
    done = subprocess.run(
        [sys.executable, "-c", command, *words.split()],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run").exists() == (code == 0)
