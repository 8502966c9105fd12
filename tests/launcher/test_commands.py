"""Help, lists, completion, sweeps: what `ml` does besides training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from antelope.launcher.commands import command
from antelope.launcher.ml import _main
from antelope.launcher.settings.bare_words import COMMANDS
from antelope.launcher.settings.completion import candidates, script
from antelope.launcher.settings.presets import presets
from antelope.launcher.settings.schema import schema
from antelope.replay import ConfigError

ROOT = Path(__file__).parents[2]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    run = command(list(words))
    assert run is not None
    run()
    return capsys.readouterr().out


def test_help_shows_examples_first_then_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--help")
    assert text.index("ml model=Model dataset=MNIST") < text.index("batch_size=")
    flat = " ".join(text.split())
    for key, setting in schema().items():
        assert f" {key}={setting.default} " in flat
        assert " ".join(setting.meaning.split()) in flat


@pytest.mark.row(31)
def test_help_configuration_typos_and_completion_do_not_import_torch() -> None:
    code = """
import sys, time
from antelope.launcher.ml import _main
assert _main(["--help"]) == 0
assert _main(["--cfg", "job", "model=Model"]) == 0
assert _main(["lrr=1e-3"]) == 2
assert _main(["tasks"]) == 0
assert _main(["--complete"]) == 0
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Did you mean `lr`?" in run.stderr


def test_help_takes_less_than_a_fifth_of_a_second_of_imports() -> None:
    # Not a time, which depends on the machine: what costs it is what is imported.
    code = (
        "import sys; from antelope.launcher.ml import _main; _main(['--help']); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    modules = set(run.stdout.splitlines()[-1].split())
    assert not {"hydra", "omegaconf", "rich", "gymnasium", "matplotlib"} & modules


def test_models_lists_ours_those_here_and_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("class MyNet: ...\n")
    text = printed(capsys, "models")
    assert all(name in text for name in ("AC2Agent", "Random", "MyNet", "resnet18"))
    (agents,) = (line for line in text.splitlines() if "AC2Agent" in line)
    (blocks,) = (line for line in text.splitlines() if "ResidualCNN" in line)
    assert agents != blocks
    assert "MLP" not in agents


def test_datasets_and_envs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "datasets")
    assert all(name in text for name in ("Digits", "Diabetes", "CIFAR10", "MNIST"))
    assert "CartPole-v1" in printed(capsys, "envs")


def test_every_preset_is_listed_with_its_meaning_and_composes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from antelope.launcher.settings.compose import compose

    text = printed(capsys, "tasks")
    for name, meaning in presets().items():
        assert f"task={name}" in text
        assert meaning
        settings = compose([f"task={name}"], {})
        assert (settings.env or settings.dataset)["_target_"]


def test_a_preset_gives_way_to_code_and_code_to_words() -> None:
    from antelope.launcher.settings.compose import compose

    settings = compose(
        ["task=classify/cifar10", "optim.lr=0.3"],
        {"epochs": 3, "optim.lr": 0.2, "dataset": "MNIST"},
    )
    assert settings.optim == {
        "_target_": "SGD",
        "lr": 0.3,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
    assert (settings.epochs, settings.dataset) == (3, {"_target_": "MNIST"})
    # Another optimiser has no use for the arguments of the preset's.
    assert compose(["task=classify/cifar10", "optim=Adam"], {}).optim == {"_target_": "Adam"}


def test_cfg_job_prints_the_composed_settings(capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(printed(capsys, "--cfg", "job", "lr=1e-2", "model=Net", "model.n=3"))
    assert config["lr"] == 0.01
    assert config["model"] == {"_target_": "Net", "n": 3}


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("ml batch", {"batch_size="}),
        ("ml model=Model opt", {"optim="}),
        ("ml plo", {"plot=", "plot"}),
        ("ml task=classify/m", {"classify/mnist"}),
        ("ml compile=", {"true", "false"}),
        ("ml precision=b", {"bf16"}),
        ("ml dataset=Di", {"Digits", "Diabetes"}),
    ],
)
def test_completion_offers_what_may_follow(line: str, offers: set[str]) -> None:
    assert set(candidates(line, whole=False)) == offers
    if "=" in line.split()[-1]:
        key = line.split()[-1].partition("=")[0]
        assert set(candidates(line, whole=True)) == {f"{key}={offer}" for offer in offers}


def test_bash_completes_by_our_command(tmp_path: Path) -> None:
    (tmp_path / "ml").write_text(
        f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {ROOT}/run.py $@\n"
    )
    (tmp_path / "ml").chmod(0o755)
    code = f"""PATH={tmp_path}:$PATH; {script("bash")}
        COMP_LINE='ml batch' COMP_POINT=8 ml --complete ml batch ml"""
    run = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["batch_size="]


def test_a_shell_that_is_not_known() -> None:
    with pytest.raises(ConfigError, match="bash, zsh, fish"):
        script("tcsh")


@pytest.mark.parametrize("word", ["modls", "--hlep", "lr"])
def test_a_word_that_is_nothing(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main([word]) == 2
    assert "neither a setting (key=value) nor a command" in capsys.readouterr().err


def test_a_sweep_runs_every_combination_in_its_own_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_of_the_sweep.py").write_text((ROOT / "examples/returns_loss.py").read_text())
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["-m", "model=Model", "optim=SGD,Adam", "optim.lr=1e-2,1e-3", "seed=1,2", "epochs=1"]
    assert _main([*words, "plot=false", "progress=false"]) == 0
    found = sorted(p.parent.relative_to(tmp_path / "runs") for p in tmp_path.rglob("eval.csv"))
    assert [str(path) for path in found] == [
        f"default/optim.lr={lr},optim={name}/Model/Digits/{seed}"
        for lr in ("0.001", "0.01")
        for name in ("Adam", "SGD")
        for seed in (1, 2)
    ]
    config = yaml.safe_load((tmp_path / "runs" / found[0] / "config.yaml").read_text())
    assert config["optim"] == {"_target_": "torch.optim.adam.Adam", "lr": 0.001}


@pytest.mark.row(35)
def test_a_failing_job_of_a_sweep_fails_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _main(["-m", "model=Modle", "seed=1,2", "progress=false"]) == 2
    assert "No model `Modle`" in capsys.readouterr().err
    assert _main(["-m", "sed=1,2"]) == 2
    assert "Did you mean `seed`?" in capsys.readouterr().err


def test_every_command_is_completed_explained_and_suggested(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, "--help")
    for name in COMMANDS:
        assert command([name]) is not None, name
        assert name in candidates(f"ml {name[:-1]}", whole=False)
        assert name in text
        assert _main([name[:-1] + "q"]) == 2
        assert f"`{name}`" in capsys.readouterr().err
