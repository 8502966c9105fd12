"""Row 31: a typo is answered at once, with the nearest right thing, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TYPOS = {
    "train_stepz=3": "Did you mean `train_steps`",
    "epoch=3": "Did you mean `epochs`",
    "early_stopping.patienc=3": "There are: early_stopping.patience",
    "epochs=fast": "epochs=fast: expected int >= 1",
    "precision=64": "precision=64: expected one of 32",
    "lr=-1": "lr=-1: expected float > 0",
    "standardise=yes": "Did you mean `standardize`",
    "batch_size=2.5": "batch_size=2.5: expected int >= 1",
    "data=gpu": "data=gpu: expected one of auto device ram",
    "loggers=[cvs]": "expected list of csv tensorboard mlflow wandb",
}
CODE = """
import sys
from antelope.launcher.ml import _main
for word in sys.argv[1:]:
    print("***", file=sys.stderr)
    assert _main([word]) == 2, word
assert "torch" not in sys.modules
"""


@pytest.mark.row(31)
def test_row_31_a_typo_is_answered_before_torch_is_imported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *TYPOS], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = done.stderr.split("***\n")[1:]
    for answer, right in zip(answers, TYPOS.values(), strict=True):
        assert right in answer
        assert len(answer.splitlines()) == 1


@pytest.mark.row(31)
@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("optim.momentumm=0.9", "SGD has no parameter `momentumm`"),
        ("model.hiden=3", "Did you mean `hidden`"),
    ],
)
def test_row_31_an_unknown_sub_key_names_the_nearest(
    word: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from antelope.launcher.ml import _main

    assert _main(["optim=SGD", "model=MLP", word]) == 2
    assert right in capsys.readouterr().err
