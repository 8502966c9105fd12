"""Words of other tools are answered with ours, all at once, whichever door they come by."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from antelope import ConfigError, ml
from antelope.launcher.ml import _main
from antelope.launcher.settings.bare_words import _COMMANDS
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.foreign import _table, answer
from antelope.launcher.settings.schema import ALIASES, schema

pytestmark = pytest.mark.usefixtures("workdir")

# Settings that answers name, and that come with other parts of this version.
COMING = {"accumulate"}


def mistakes(*words: str, **code: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        compose(words, code)
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("word", "whose", "ours"),
    [
        ("train_mb_size=32", "Avalanche", "batch_size="),
        ("n_experiences=5", "Avalanche", "tasks="),
        ("buffer_size=500", "Mammoth", "strategy.capacity="),
        ("max_epochs=3", "Lightning", "epochs="),
        ("accumulate_grad_batches=4", "Lightning", "accumulate="),
        ("gradient_clip_val=1", "Lightning", "clip_grad="),
        ("learning_rate=1e-3", "Keras", "lr="),
        ("learning-rate=1e-3", "Keras", "lr="),
        ("class_weight=balanced", "Keras", "use loss=CrossEntropyLoss loss.weight=balanced"),
        ("total_timesteps=1000", "Stable-Baselines3", "train_steps="),
        ("frames_per_batch=64", "TorchRL", "learn_every="),
        ("num_train_epochs=3", "Hugging Face", "epochs="),
        ("RL=true", "UnifiedML", "rl=true"),
        ("Eyes=CNN", "UnifiedML", "encoder="),
        ("gpu=0", "PyTorch", "device=cuda"),
        ("pretrained=true", "torchvision", "model.weights=DEFAULT"),
        ("optimizer=Adam", "Keras", "optim="),
    ],
)
def test_a_setting_of_another_tool(word: str, whose: str, ours: str) -> None:
    key, _, value = word.partition("=")
    (line,) = mistakes(word)
    assert line.startswith(f"`{key}` is ")
    assert f"{whose}'s" in line
    assert ours in line
    assert mistakes(**{key: value}) == [line]
    assert mistakes(f"--{key}", value) == [line]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("ema=true", "ema= is a number, the decay of the averaged weights; ema=0.999 is usual"),
        ("precision=bf16-mixed", "use precision=bf16"),
        ("strategy=replay", "use strategy=er"),
        ("policy=MlpPolicy", "leave policy= out"),
        ("dataset=SplitMNIST", "use dataset=MNIST tasks=5"),
        ("dataset=seq-mnist", "use dataset=MNIST tasks=5"),
        ("device=gpu", "use device=cuda"),
        ("optim.learning_rate=1", "use lr="),
    ],
)
def test_a_value_of_another_tool(word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        ml(word, progress=False)


@pytest.mark.parametrize(
    "words",
    [
        *(["--epochs", "5"], ["--epochs=5"], ["-epochs", "5"], ["epochs", "5"], ["epochs 5"]),
        *(["epochs:", "5"], ["epochs:5"], ["epochs: 5"], ["epochs", "=", "5"], ["epochs=", "5"]),
        ["epochs", "=5"],
    ],
)
def test_forms_that_are_not_key_value(words: list[str]) -> None:
    found = mistakes(*words, "seed=x")
    assert found[0].endswith("settings are words of the form key=value. Write epochs=5.")
    assert found[1:] == ["seed=x: expected int >= 0."]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--debug"], "Write debug=true."),
        (["--no-plot"], "Write plot=false."),
        (["--batch-size", "3"], "Write batch_size=3."),
        (["-lr", "-3"], "Write lr=-3."),
        (["--model.hidden", "64"], "Write model.hidden=64."),
        (["lr"], "Write lr=VALUE."),
        (["classify/mnist"], "Write task=classify/mnist."),
        (["Digits"], "Write dataset=Digits."),
        (["ewc"], "Write strategy=ewc."),
        (["CartPole-v1"], "Write env=CartPole-v1."),
        (["model.py"], "write model=model.py:Name."),
        (["model.py:Net"], "write model=model.py:Net."),
        (["--batch_sise", "3"], "Did you mean `batch_size`"),
        (["tain"], "Did you mean `train`"),
        (["--"], "neither a setting (key=value) nor a command"),
        (["="], "neither a setting (key=value) nor a command"),
    ],
)
def test_bare_words(words: list[str], says: str) -> None:
    (line,) = mistakes(*words)
    assert says in line


def test_a_value_that_is_a_dict() -> None:
    (line,) = mistakes(class_weight={0: 1.0})
    assert "`class_weight` is Keras's" in line
    assert "Did you mean" not in line
    (line,) = mistakes(optimizer={"lr": 1.0})
    assert "Did you mean `optim`" in line


@pytest.mark.parametrize("word", _COMMANDS)
def test_a_command_of_another_tool(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main([word, "somewhere", "epochs=0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"`ml {word}` is not a command: ")
    assert lines[1:] == ["epochs=0: expected int >= 1."]


def test_all_at_once_in_a_script_a_sweep_and_a_preset(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--n_epochs", "5", "--lr=3", "mem_size=2"])
    with pytest.raises(ConfigError) as raised:
        ml(*sys.argv[1:])
    assert len(str(raised.value).splitlines()) == 3
    assert _main(["-m", "seed=1,2", "--epochs", "5"]) == 2
    assert "Write epochs=5." in capsys.readouterr().err
    Path("mine.yaml").write_text("# @package _global_\nmax_epochs: 3\n")
    assert mistakes("task=mine") == [f"mine.yaml, line 2: {answer('max_epochs')}"]


def test_what_is_meant_as_it_is_stays_as_it_is() -> None:
    settings = compose(["model=model.py:Net", "path=a b", "experiment=a:b", "model.x='c d'"], {})
    assert settings.model == {"_target_": "model.py:Net", "x": "c d"}
    assert (settings.path, settings.experiment) == ("a b", "a:b")
    assert _main(["version"]) == 0


def test_every_answer_names_settings_that_exist_and_no_word_is_one() -> None:
    for word, text in _table().items():
        assert text.count("|") == 1, word
        assert word not in schema(), f"{word} is a setting of ours now: take it out of foreign.yaml"
        for name in re.findall(r"(?<!--)\b([a-z_]+)(?:\.[a-z_]+)?=", text):
            below = any(key.startswith(f"{name}.") for key in schema())
            assert below or name in {*schema(), *ALIASES, "task", *COMING, "label_smoothing"}, word
