"""The words of `ml -m`: which runs they ask for, and what is said of mistakes before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from antelope import ConfigError
from antelope.launcher.ml import _main
from antelope.launcher.settings.compose import compose
from antelope.launcher.sweep.grid import make_trials
from antelope.launcher.sweep.places import digest, folder_name, make_trial
from antelope.launcher.sweep.words import combinations, read_words


def runs(*words: str) -> list[str]:
    return [" ".join(found.words) for found in combinations(read_words(words).words)]


def test_every_combination_is_a_run_in_the_order_in_which_it_is_typed() -> None:
    assert runs("-m", "seed=0,1", "lr=1e-3,0.01", "epochs=2") == [
        "seed=0 lr=0.001 epochs=2",
        "seed=0 lr=0.01 epochs=2",
        "seed=1 lr=0.001 epochs=2",
        "seed=1 lr=0.01 epochs=2",
    ]
    assert combinations(["lr=1", "seed=3,4"])[1].swept == {"seed": "4"}


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=range(3)", ["seed=0", "seed=1", "seed=2"]),
        ("seed=range(1,9,4)", ["seed=1", "seed=5"]),
        ("optim=choice(SGD,Adam)", ["optim=SGD", "optim=Adam"]),
        ("model.hidden=[64],[64,32]", ["model.hidden=[64]", "model.hidden=[64,32]"]),
        ("model.hidden=[64,32]", ["model.hidden=[64,32]"]),
        ("experiment='a,b'", ["experiment='a,b'"]),
        ("experiment='a,b',c", ["experiment='a,b'", "experiment=c"]),
        ("optim.groups.*.bias.lr=1e-3,0.1", ["optim.groups.*.bias.lr=0.001", "optim.groups.*.bias.lr=0.1"]),
        ("task=glob(classify/mn*)", ["task=classify/mnist"]),
        ("+lr=1,2", ["+lr=1", "+lr=2"]),
        ("path=a=b", ["path=a=b"]),
        ("model.api_key=${oc.env:A},${oc.env:B}", ["model.api_key=${oc.env:A}", "model.api_key=${oc.env:B}"]),
        ("model=a.py:Net,b.py:Net", ["model=a.py:Net", "model=b.py:Net"]),
        (r"model.name=a\,b,c", [r"model.name=a\,b", "model.name=c"]),
    ],
)  # fmt: skip
def test_a_word_lists_its_values(word: str, values: list[str]) -> None:
    assert runs(word) == values


def test_words_of_the_sweep_itself_are_no_settings() -> None:
    read = read_words(["-m", "seed=0,1", "jobs=4", "engine=slurm", "slurm.time='4:00:00'"])
    assert read.words == ["seed=0,1"]
    assert read.options == {"jobs": "4", "engine": "slurm", "slurm.time": "4:00:00"}
    assert read.chosen("slurm.") == {"time": "4:00:00"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("seed=1,1", "lists 1 twice"),
        ("seed=range(0)", "lists no values"),
        ("batch_size=16,16.0", "lists 16 twice"),
        ("model.name=a/b,a-b", "several names of experiment="),
        ("model={_target_:Net,key:hidden-1},{_target_:Net,key:hidden-2}", "holds secrets"),
        ("seed=range(1000000)", "more than 100,000"),
        ("seed=range(1000) lr=range(1000)", "1,000,000 runs"),
        ("lr=log(1e-5,1e-1)", "search=tpe"),
        ("lr=interval(0,1)", "search=tpe"),
        ("lr=uniform(0,1)", "search=tpe"),
        ("task=glob(nothing*)", "none has such a name"),
        ("jobs=0", "at least 1"),
        ("jobs=two", "at least 1"),
        ("jobs=2 jobs=3", "given twice"),
        ("jobs=2 engine=here", "contradicts"),
        ("engine=rai", "Did you mean `ray`"),
        ("--jobs 4", "jobs=VALUE"),
        ("n_jobs=4", "write jobs=4"),
        ("n_trials=4", "write trials=50"),
        ("trials=5", "add search="),
        ("slurm.partition=gpu", "add engine=slurm"),
        ("slurm.print=true", "add engine=slurm"),
        ("hydra/launcher=joblib", "jobs=4 or engine=ray"),
        ("hydra.sweeper.n_trials=4", "search=tpe"),
        ("seed=0,1 sed=3", "Did you mean `seed`"),
        ("seed=0,x", "seed"),
        ("seed=0, 1", "seed"),
        ("seed=0,1 path=there", "same directory"),
        ("seed=0,1 seed=2,3", "given twice"),
        ("model=Modle seed=0,1", "No model `Modle`"),
        ("table seed=0,1", "table"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _main(["-m", *words.split()]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_m_a_word_of_sweeps_says_so() -> None:
    with pytest.raises(ConfigError, match="add -m"):
        compose(["jobs=4"], {})


def test_a_run_is_where_it_would_be_on_its_own(tmp_path: Path) -> None:
    (trial,) = make_trials([(c, {}) for c in combinations(["seed=3", "dataset=MNIST"])], tmp_path)
    assert trial.path == tmp_path / "runs/default/AC2Agent/MNIST/3"
    words = ["env=CartPole-v1", "agent=DQN", "lr=1e-3,0.1", "experiment=mine"]
    trials = make_trials([(c, {}) for c in combinations(words)], tmp_path)
    assert trials[1].path == tmp_path / "runs/mine/lr=0.1/DQN/CartPole-v1/0"
    assert "experiment='mine/lr=0.1'" in trials[1].words
    trials = make_trials([(c, {}) for c in combinations(["path=a,b"])], tmp_path)
    assert [trial.path.name for trial in trials] == ["a", "b"]


def test_the_names_of_folders_are_short_and_without_separators() -> None:
    assert folder_name({"seed": "0", "optim": "SGD", "lr": "1"}) == "lr=1,optim=SGD"
    name = folder_name({"task": "a/b.yaml", "env": "others:Mine-v0"})
    assert name == "env=others-Mine-v0,task=a-b.yaml"
    long = folder_name({"model.hidden": "[" + ",".join(map(str, range(500))) + "]"})
    assert len(long) < 200
    assert long != folder_name({"model.hidden": "[" + ",".join(map(str, range(501))) + "]"})


@pytest.mark.parametrize("name", ["it's", 'a "b"', 'it\'s "b"', "mein Ünï ❤", "a,b=c"])
def test_any_experiment_may_be_swept(name: str, tmp_path: Path) -> None:
    trial = make_trial(["lr=1"], {"lr": "1"}, {"experiment": name}, tmp_path)
    assert compose(trial.words, {}).experiment == f"{name}/lr=1"
    assert trial.path.parts[-5:-3] == (name, "lr=1")


def test_a_secret_becomes_no_part_of_a_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="holds secrets"):
        make_trial(["model.api_key=abcdefgh"], {"model.api_key": "abcdefgh"}, {}, tmp_path)
    monkeypatch.setenv("FIRST_KEY", "abcdefgh")
    word = "${oc.env:FIRST_KEY}"
    trial = make_trial([f"model.api_key={word}"], {"model.api_key": word}, {}, tmp_path)
    assert "model.api_key=FIRST_KEY" in trial.path.parts
    assert word in trial.words[0]


def test_what_changes_no_result_changes_no_digest() -> None:
    assert digest(compose(["lr=1"], {})) == digest(compose(["lr=1", "progress=false"], {}))
    assert digest(compose(["lr=1"], {})) != digest(compose(["lr=1", "epochs=3"], {}))


def test_the_runs_of_a_sweep_are_listed_without_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _main(["-m", "seed=0,1", "lr=1e-3,0.1", "--cfg", "job", "jobs=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "ml seed=0 lr=0.1 'experiment='\"'\"'default/lr=0.1'\"'\"''"
    assert len(lines) == 4
    assert not list(tmp_path.iterdir())
