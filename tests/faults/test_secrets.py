"""Row 46: secrets are used and never written; and escape sequences of others are shown, not sent."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

import antelope
from antelope import ml
from antelope.launcher.ml import _main
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.secrets import NOT_SAVED, is_secret, may_be_secret
from antelope.replay import ConfigError
from antelope.replay.shown import shown

SECRET, PLAIN = "SECRET-of-the-environment", "PLAIN-secret-in-a-word"
QUIET = {"dataset": "Digits", "train_steps": 3, "plot": False, "save_every": 1}
NET = """
import torch
class Net(torch.nn.Linear):
    def __init__(self, in_features, out_features, note=None, api_key=None, wrong=False):
        if wrong:
            raise ValueError(f"the server refused {note} and {api_key}")
        super().__init__(in_features, out_features)
        self.used = [note, api_key]
    def forward(self, obs):
        return super().forward(obs.flatten(1))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYTOKEN", SECRET)
    Path("net.py").write_text(NET)
    return tmp_path


WORDS = ("model=net.py:Net", "model.note='${oc.env:MYTOKEN}'", f"model.api_key={PLAIN}")


def check_nothing_holds_them(*texts: str) -> None:
    for text in texts:
        assert SECRET not in text
        assert PLAIN not in text
    for file in Path("runs").rglob("*"):
        held = file.read_bytes() if file.is_file() else b""
        assert SECRET.encode() not in held, file
        assert PLAIN.encode() not in held, file


@pytest.mark.row(46)
def test_row_46_a_secret_reaches_the_model_and_no_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    wandb: Any = ModuleType("wandb")
    wandb.init = lambda **named: told.append(named) or MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = ml(*WORDS, loggers=["csv", "wandb"], render_model=True, **QUIET)
    assert run.agent.used == [SECRET, PLAIN]
    assert told
    check_nothing_holds_them(*capfd.readouterr(), str(told))
    saved = yaml.safe_load((run.path / "config.yaml").read_text())
    assert saved["model"]["note"] == "${oc.env:MYTOKEN}"
    # From the directory, the environment is asked again, and what was in plain has to be given again.
    with pytest.raises(ConfigError, match=r"model.api_key was not saved.*Give it again"):
        antelope.load(run.path, *WORDS[:1])
    loaded = antelope.load(run.path, WORDS[0], WORDS[2])
    assert loaded.agent.used == [SECRET, PLAIN]
    again = [*(word for word in WORDS if "note" not in word), "progress=false", "train_steps=5"]
    assert _main(["resume", str(run.path), *again]) == 0
    check_nothing_holds_them(*capfd.readouterr())
    assert _main(["--cfg", "job", *WORDS]) == 0
    check_nothing_holds_them(*capfd.readouterr())


@pytest.mark.row(46)
@pytest.mark.parametrize("more", [("debug=true",), ()])
def test_row_46_an_error_does_not_show_them(
    more: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = (*WORDS, "model.wrong=true", "dataset=Digits", "plot=false", *more)
    assert _main([*wrong]) == 2
    out, errors = capfd.readouterr()
    assert "the server refused" in errors
    check_nothing_holds_them(out, errors)
    with pytest.raises(ConfigError) as caught:
        ml(*wrong)
    check_nothing_holds_them(str(caught.value))


@pytest.mark.row(46)
def test_row_46_an_environments_constructor_neither(capfd: pytest.CaptureFixture[str]) -> None:
    Path("cave.py").write_text(
        "import gymnasium\nclass Cave(gymnasium.Env):\n"
        "    def __init__(self, password=None, host=None):\n"
        "        raise OSError(f'no route to {host} for {password}')\n"
    )
    words = ("env=cave.py:Cave", f"env.password={PLAIN}", "env.host='${oc.env:MYTOKEN}'")
    assert _main([*words, "plot=false"]) in (1, 2)
    out, errors = capfd.readouterr()
    assert "no route to" in errors
    check_nothing_holds_them(out, errors)


@pytest.mark.row(46)
def test_row_46_numbers_and_choices_are_written_as_they_were_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEED", "7")
    settings = compose(["seed='${oc.decode:${oc.env:SEED}}'", "experiment='${oc.env:MYTOKEN}'"], {})
    assert (settings.seed, settings.experiment) == (7, SECRET)
    written = yaml.safe_load(settings.yaml())
    assert (written["seed"], written["experiment"]) == (7, "${oc.env:MYTOKEN}")


@pytest.mark.row(46)
def test_row_46_names_that_say_secret() -> None:
    for name in (
        "token",
        "hf_token",
        "api_key",
        "apiKey",
        "password",
        "DB_PASSWORD",
        "client_secret",
    ):
        assert is_secret(name)
        assert may_be_secret(name)
    for name in ("pad_token", "obs_key", "tokens", "monkey", "keys", "num_tokens", "key_dim"):
        assert not is_secret(name)
    assert may_be_secret("obs_key")


@pytest.mark.row(46)
def test_row_46_numbers_are_secrets_where_they_are_meant_as_such() -> None:
    words = ["model=net.py:Net", "model.password=31415926", "model.api_key=2718", "model.key=7"]
    written = yaml.safe_load(compose([*words, "model.max_token=512"], {}).yaml())["model"]
    assert (written["password"], written["api_key"]) == (NOT_SAVED, NOT_SAVED)
    assert (written["key"], written["max_token"]) == (7, 512)
    assert shown("refused 31415926") == "refused ***"


CLASS = "\x1b]0;mine\x07\x1b[2Jcat\u202e"


@pytest.mark.row(38)
def test_row_38_escape_sequences_are_shown_and_not_sent(capfd: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for name in (CLASS, "dog"):
        folder = Path("pictures") / name
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}\x1b[31m.png")
    Path("preset.yaml").write_text('# @package _global_\n# \x1b[2J\nmodel: "\\e[2J"\n')
    words = ("dataset=pictures", "train_steps=1", "plot=false")
    assert _main([*words]) == 0
    assert _main([*words, "task=preset"]) == 2
    assert _main([*words, "model.hidden=\x1b[2J", "loss=\x1b[31mred"]) == 2
    assert _main(["tasks"]) == 0
    Path("pictures/dog/broken\x1b[5m.png").write_bytes(b"")
    assert _main([*words]) == 2
    out, errors = capfd.readouterr()
    for text in (out, errors):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\\x1b[5m.png" in errors


def test_text_is_shown_as_it_is_but_for_what_would_act() -> None:
    assert shown("Größe\t1\nnächste") == "Größe\t1\nnächste"
    assert shown("a\nb", line=True) == "a\\nb"
    assert shown("\x9b2J\r\x7f\udc1b") == "\\x9b2J\\r\\x7f\\udc1b"


@pytest.mark.row(46)
def test_row_46_the_status_of_a_run_that_failed_does_not_hold_it() -> None:
    more = (
        "    calls = 0\n    def learn(self, replay):\n        self.calls += 1\n        b = next(replay)\n"
        "        if self.calls > 2: raise RuntimeError(f'refused {self.used}')\n"
        "        return torch.nn.functional.cross_entropy(self(b.obs), b.label)\n"
    )
    Path("net.py").write_text(NET + more)
    with pytest.raises(RuntimeError, match="refused"):
        ml(*WORDS, "path=runs/failed", **QUIET)
    assert "refused" in Path("runs/failed/status.json").read_text()
    check_nothing_holds_them()
