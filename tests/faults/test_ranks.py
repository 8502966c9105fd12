"""A rank of a run on two devices dies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .console import NET, finished

LEARN = """\
    def learn(self, replay, log):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 5 and os.path.exists("kill") and ranks().rank == 1:
            os.kill(os.getpid(), 9)
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)
"""


@pytest.mark.row(54)
def test_a_rank_that_dies_ends_the_run_and_a_resumed_one_continues_it(tmp_path: Path) -> None:
    code = NET.replace("import os\n", "import os\n\nfrom antelope.replay.ranks import ranks\n", 1)
    (tmp_path / "net.py").write_text(code + LEARN)
    words = ["model=net.py:Net", "dataset=Digits", "train_steps=8", "save_every=2", "devices=2"]
    words += ["device=cpu", "path=run", "plot=false", "render_model=false"]
    (tmp_path / "kill").touch()
    killed = finished(*words, cwd=tmp_path)
    assert killed.returncode == 1, killed.stderr
    assert "Rank 1 was killed by signal 9" in killed.stderr
    assert "resume=true continues" in killed.stderr
    assert json.loads((tmp_path / "run/status.json").read_text())["status"] == "failed"
    (tmp_path / "kill").unlink()
    resumed = finished(*words, "resume=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "run/status.json").read_text())["step"] == 8
