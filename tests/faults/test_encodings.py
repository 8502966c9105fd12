"""Row 53: the model's file is read as Python reads it, whatever the locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NET = """
import torch
class Netz(torch.nn.Linear):  # Für Grauwerte.
    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.größe = "ä"
        assert len(self.größe) == 1
    def forward(self, obs):
        return super().forward(obs.flatten(1))
"""


@pytest.mark.row(53)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
def test_row_53_the_file_of_a_model_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    line = "# -*- coding: latin-1 -*-\n" if encoding == "latin-1" else ""
    (tmp_path / "netz.py").write_bytes((line + NET).encode(encoding))
    words = ("model=Netz", "dataset=Digits", "train_steps=1", "plot=false")
    if encoding == "utf-8":  # In a process of its own, whose locale is C.
        done = subprocess.run(
            [sys.executable, "-c", "from antelope.launcher.ml import main; main()", *words],
            cwd=tmp_path,
            env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            capture_output=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        from antelope.launcher.ml import _main

        assert _main([*words]) == 0
    finally:
        os.chdir(here)
        sys.modules.pop("netz", None)
