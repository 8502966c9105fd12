"""`ml export RUN`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from antelope import ml
from antelope.launcher.ml import main


def test_exports_a_run_of_a_model_in_a_file(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_features, out_features):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_features, out_features))\n"
    )
    run = ml("model=net.py:Net", "train_steps=2", "plot=false", "progress=false", "path=run")
    words = ["export", "run", "model=net.py:Net", "format=torch", "out=net.pt2"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == str(workdir / "net.pt2")
    raw = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(torch.export.load("net.pt2").module()(raw).detach(), run(raw))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export"], "Which run? ml export RUN"),
        (["export", "format=onnx"], "Which run? ml export RUN"),
        (["export", "run", "fromat=onnx"], "Did you mean `format`"),
        (["export", "run", "trust=maybe"], "expected true or false"),
        (["export", "nowhere"], "does not exist"),
    ],
)
def test_a_mistake_is_answered(
    words: list[str], said: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
