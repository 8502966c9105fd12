"""Presets: ours by name, the user's by path, and a mistake in one names the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from antelope import ConfigError, ml
from antelope.launcher.commands import _print_presets
from antelope.launcher.ml import _main
from antelope.launcher.settings.compose import compose

pytestmark = pytest.mark.usefixtures("workdir")


def write(name: str, *lines: str, package: bool = True) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*(["# @package _global_"] if package else []), *lines, ""]))
    return path


def mistakes(task: Any, *words: str) -> str:
    with pytest.raises(ConfigError) as raised:
        compose(words, {"task": task})
    return str(raised.value)


@pytest.mark.parametrize("name", ["mine", "mine.yaml", "presets/other", "presets/other.yml"])
def test_a_file_of_the_user(name: str) -> None:
    write("mine.yaml", "epochs: 3")
    write("presets/other.yml", "epochs: 3")
    assert compose([f"task={name}"], {}).epochs == 3
    assert compose([], {"task": name}).epochs == 3
    assert compose([], {"task": Path(name)}).epochs == 3
    assert compose([f"task={Path(name).absolute()}"], {}).epochs == 3


def test_a_file_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    write("home/mine.yaml", "epochs: 3")
    monkeypatch.setenv("HOME", str(workdir / "home"))
    assert compose(["task=~/mine.yaml"], {}).epochs == 3
    assert compose(["task=~/mine"], {}).epochs == 3


def test_words_over_code_over_preset_over_defaults() -> None:
    write("mine.yaml", "epochs: 3", "batch_size: 3", "seed: 3", "optim: SGD", "optim.momentum: 0.5")
    settings = compose(["seed=5"], {"task": "mine.yaml", "batch_size": 4, "seed": 4})
    assert (settings.epochs, settings.batch_size, settings.seed) == (3, 4, 5)
    assert settings.optim == {"_target_": "SGD", "momentum": 0.5}
    # Another optimiser has no use for the arguments of the preset's.
    assert compose(["optim=Adam"], {"task": "mine"}).optim == {"_target_": "Adam"}


def test_a_word_chooses_another_preset_than_the_code() -> None:
    write("mine.yaml", "epochs: 3")
    write("other.yaml", "batch_size: 3")
    settings = compose(["task=other"], {"task": "mine"})
    assert (settings.epochs, settings.batch_size) == (None, 3)
    assert compose(["task=null"], {"task": "mine"}).epochs is None


def test_scalars_mean_what_they_mean_as_words() -> None:
    write(
        "mine.yaml",
        "lr: 1e-3",
        "experiment: 1e-3",
        "plot: off",
        "progress: yes",
        "model.a: off",
        "model.b: 010",
        "model.c: 1:30",
        "model.d: 2024-01-01",
        "model.e: '1'",
        "model.f:",
        "model.g: [1, 2.5, x]",
        "train_steps: 1_000",
    )
    settings = compose([], {"task": "mine"})
    assert settings.lr == 0.001
    assert settings.experiment == "1e-3"
    assert settings.plot is False
    assert settings.progress is True
    assert settings.train_steps == 1000
    arguments = {"a": "off", "b": "010", "c": "1:30", "d": "2024-01-01", "e": "1", "f": None}
    assert settings.model == {**arguments, "g": [1, 2.5, "x"]}


def test_every_mistake_is_named_with_its_line() -> None:
    write(
        "presets/mine.yaml",
        "train_stepz: 20",
        "early_stopping:",
        "  patienc: 3",
        "epochs: fast",
        "precision: 64",
        "model: Modle",
        "optim:",
        "  _target_: SGD",
        "  momentumm: 0.9",
    )
    found = mistakes("presets/mine").splitlines()
    for line, text in (
        (2, "Unknown setting `train_stepz`. Did you mean `train_steps`"),
        (4, "Unknown setting `early_stopping.patienc`. There are: early_stopping.patience"),
        (5, "epochs=fast: expected int >= 1"),
        (6, "precision=64: expected one of 32"),
        (7, "No model `Modle`"),
        (10, "SGD has no parameter `momentumm`"),
    ):
        assert any(f.startswith(f"presets/mine.yaml, line {line}: {text}") for f in found), text
    assert len(found) == 6


def test_what_a_word_replaces_is_not_blamed_on_the_file() -> None:
    write("mine.yaml", "epochs: 3")
    assert mistakes("mine", "epochs=0") == "epochs=0: expected int >= 1."


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["lr: 1", "lr: 2"], "line 3: `lr` is given twice, first on line 2"),
        (["optim:", "  lr: 1", "optim.lr: 2"], "line 4: `optim.lr` is given twice"),
        (["optim:", "\tlr: 1"], "line 3 is not YAML.*YAML does not allow tabs"),
        (["lr: [1, 2", "epochs: 3"], "line 3 is not YAML"),
        (["- lr", "- 3"], "holds a list. Write a setting per line"),
        (["lr 1e-3"], "holds one value. Write a setting per line"),
        ([], "sets nothing"),
        (["lr: !!python/object/apply:os.getcwd []"], "line 2: .* is not allowed in a preset"),
        (["model: &a [*a]"], "is not a preset: the alias .a repeats itself"),
        (["experiment: ${oc.env:NOT_THERE}"], "line 2: Cannot resolve .*NOT_THERE"),
        (["defaults: [mine]"], "builds on itself"),
        (["defaults: [gone]"], "line 2: No preset `gone`"),
        (["defaults: [{optim: sgd}]"], "line 2: `defaults` lists the names of other presets"),
        (["task: other"], "line 2: to build on another preset, write `defaults"),
        (["? [a]", ": 1"], "line 2: a key is a word, not a list"),
    ],
)
def test_a_file_that_is_no_preset(lines: list[str], says: str) -> None:
    write("mine.yaml", *lines)
    with pytest.raises(ConfigError, match=f"^mine.yaml.*{says}"):
        compose([], {"task": "mine"})


def test_the_package_line_that_is_missing_is_given() -> None:
    write("mine.yaml", "epochs: 3", package=False)
    assert mistakes("mine") == (
        "mine.yaml is not a preset: its first line must be `# @package _global_`."
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "mien.yaml",
            "No preset `mien.yaml`: there is no file .*mien.yaml. Did you mean `mine.yaml`",
        ),
        ("mien", "No preset `mien`. Did you mean `mine`"),
        ("presets/othr", "Did you mean `presets/other`"),
        ("presets", "task=presets is a folder. Name a file in it: presets/other.yaml"),
        ("classify/mnist.yaml", "Did you mean `classify/mnist`"),
        ("classify/mits", "Did you mean `classify/mnist`"),
        ("", "expected one preset"),
        (3, "expected one preset"),
        (["mine", "mine"], "expected one preset"),
    ],
)
def test_a_preset_that_is_not_there(name: Any, says: str) -> None:
    write("mine.yaml", "epochs: 3")
    write("presets/other.yaml", "epochs: 3")
    with pytest.raises(ConfigError, match=says):
        compose([], {"task": name})


def test_a_file_named_as_ours_is_chosen_by_its_path() -> None:
    write("classify/digits.yaml", "epochs: 3")
    assert "task=./classify/digits.yaml for the file" in mistakes("classify/digits")
    assert compose(["task=./classify/digits.yaml"], {}).epochs == 3


def test_a_preset_builds_on_ours_and_on_the_user_s() -> None:
    write("presets/base.yaml", "epochs: 3", "seed: 3", "optim: {_target_: SGD, lr: 0.1}")
    write("presets/mine.yaml", "defaults: [classify/digits, base]", "seed: 4", "optim.lr: 0.2")
    settings = compose([], {"task": "presets/mine"})
    assert settings.dataset == {"_target_": "Digits"}
    assert (settings.epochs, settings.lr_decay_epochs, settings.seed) == (3, 20, 4)
    assert settings.optim == {"_target_": "SGD", "lr": 0.2}
    write("presets/first.yaml", "defaults: [_self_, base]", "seed: 4")
    assert compose([], {"task": "presets/first"}).seed == 3
    write("presets/third.yaml", "defaults: [mine]", "seed: 5")
    assert compose([], {"task": "presets/third"}).seed == 5


def test_a_mistake_found_later_names_the_preset_too() -> None:
    write("mine.yaml", "dataset: Digits", "env: CartPole-v1")
    with pytest.raises(ConfigError, match=r"are both given(.|\n)*With the settings of mine.yaml"):
        ml(task="mine")


def test_a_preset_trains_in_both_doors() -> None:
    write("mine.yaml", "epochs: 1", "plot: off", "progress: off", "path: here", "batch_size: 512")
    assert ml(task="mine.yaml").path.name == "here"
    assert _main(["task=mine", "path=there"]) == 0
    assert json.loads(Path("there/status.json").read_text())["status"] == "finished"
    assert Path("here/config.yaml").read_text().replace("here", "there") == (
        Path("there/config.yaml").read_text()
    )


def test_the_configuration_of_a_run_is_a_preset_once_it_has_the_line() -> None:
    short = {"progress": False, "plot": False}
    first = ml(epochs=1, tasks=2, strategy="er", seed=3, path="first", **short)
    text = (first.path / "config.yaml").read_text()
    Path("again.yaml").write_text(f"# @package _global_\n{text}")
    # Warnings are errors: nothing in it is without effect.
    second = ml(task="again", path="second")
    assert second.metrics == first.metrics
    assert (second.path / "config.yaml").read_text() == text.replace("first", "second")


def test_quotes_that_make_a_number_text_are_told() -> None:
    write("mine.yaml", 'lr: "1e-3"')
    assert mistakes("mine") == (
        "mine.yaml, line 2: lr=1e-3: expected float > 0. It is text: leave out the quotes."
    )


def test_the_user_s_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    write("presets/mine.yaml", "# What it is for", "epochs: 3")
    write("other.yaml", "name: of another tool", package=False)
    _print_presets([])
    text = capsys.readouterr().out
    assert "task=presets/mine.yaml" in text
    assert "What it is for" in text
    assert "other.yaml" not in text


def test_a_sweep_over_presets() -> None:
    write("mine.yaml", "epochs: 1", "batch_size: 512", "plot: off", "progress: off")
    write("presets/other.yaml", "defaults: [../mine]", "lr: 1e-3")
    assert _main(["-m", "task=mine,presets/other.yaml", "seed=1"]) == 0
    names = {path.parents[3].name for path in Path("runs").rglob("eval.csv")}
    assert names == {"task=mine", "task=presets-other.yaml"}
    assert _main(["-m", "task=mine", "lr=1e-3,1e-2", "experiment=lrs"]) == 0
    assert {path.name for path in Path("runs/lrs").glob("lr=*")} == {"lr=0.001", "lr=0.01"}
    assert _main(["-m", "task=mine,gone", "experiment=none"]) == 2
    assert not Path("runs/none").exists()
