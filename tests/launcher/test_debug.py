"""Tracebacks: short where the error says it all, whole with `debug`."""

from __future__ import annotations

import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from antelope import ConfigError, DataError, ml
from antelope.launcher.ml import _formatted, _main, main

pytestmark = pytest.mark.usefixtures("workdir")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # Where nobody listens.
    monkeypatch.setattr("urllib.request._opener", None)
    return {"dataset": "CIFAR10", "data_dir": "nowhere", "progress": False, "plot": False}


def traceback_of(**settings: Any) -> list[str]:
    with pytest.raises(
        DataError, match=r"CIFAR10 could not be read from .* nor downloaded"
    ) as raised:
        ml(**settings)
    return "".join(traceback.format_exception(raised.value)).splitlines()


def test_a_missing_data_set_is_a_short_traceback_in_python(offline: dict[str, Any]) -> None:
    lines = traceback_of(**offline)
    assert len(lines) <= 12
    assert not any("During handling" in line or "direct cause" in line for line in lines)
    assert len(traceback_of(debug=True, **offline)) > 30


def test_an_error_of_the_user_s_own_code_keeps_its_cause() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            raise KeyError("width")

    with pytest.raises(ConfigError) as raised:
        ml(model=Model, progress=False)
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "on"])
def test_debug_in_every_form(
    word: str, offline: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{key}={value}" for key, value in offline.items()]
    assert _main([*words, f"debug={word}"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert _main(["lrr=3", f"debug={word}"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_debug_in_a_preset(offline: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("# @package _global_\ndebug: true\n")
    words = ["task=mine", *(f"{key}={value}" for key, value in offline.items())]
    assert _main(words) == 2
    assert "Traceback" in capsys.readouterr().err
    assert _main([*words, "debug=off"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_console_shows_the_text_of_a_warning_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", sys.path.copy())
    before = warnings.formatwarning
    root = Path(sys.modules[_main.__module__].__file__ or "").parent
    shown = _formatted("`x` has no effect.", UserWarning, str(root / "train.py"), 1)
    assert shown == "`x` has no effect.\n"
    assert _formatted("old", UserWarning, "theirs.py", 3).startswith(
        "theirs.py:3: UserWarning: old"
    )
    with pytest.raises(SystemExit):
        main(["--version"])
    assert warnings.formatwarning is before
