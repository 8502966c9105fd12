"""Row 19: a `learn` that returns no loss, or one that cannot be learnt from, is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from .console import NET, finished

MODEL = (
    NET
    + """\
    def learn(self, replay):
        batch = next(replay)
        loss = F.cross_entropy(self(batch.obs), batch.label, reduction="none")
        return {returned}
"""
)


@pytest.mark.row(19)
@pytest.mark.parametrize(
    ("returned", "code", "said"),
    [
        ("loss", 2, "Net.learn returned a tensor of shape [32]. Return a scalar loss"),
        ("loss.mean().detach()", 2, "without a graph: nothing to back-propagate. It was detached"),
        ("loss.mean().item()", 2, "Net.learn returned a float"),
        ("None", 0, "Nothing was trained: Net.learn returned no loss, and no parameter"),
    ],
)
def test_row_19_what_learn_returns_is_named(
    returned: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "model.py").write_text(MODEL.format(returned=returned))
    words = (
        "model=Net dataset=Digits train_steps=3 eval_every=10 progress=false plot=false path=run"
    )
    done = finished(*words.split(), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run").exists() == (code == 0)
