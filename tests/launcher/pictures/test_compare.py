import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from antelope.launcher.pictures.compare import plot_runs
from antelope.replay import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with `runs`: two models on Digits, two seeds each, and a CartPole."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for seed in (0, 1):
        write_run("runs/default/Small/Digits", seed, "accuracy", [0.2, 0.5 + 0.2 * seed])
        write_run("runs/default/Large/Digits", seed, "accuracy", [0.5, 0.9])
    write_run("runs/default/Small/CartPole-v1", 0, "return", [20, 200])
    return tmp_path


def write_run(group: str, seed: int, metric: str, values: list[float]) -> None:
    run = Path(group, str(seed))
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(f"seed: {seed}\n")
    rows = "".join(f"eval,{100 * (i + 1)},{value}\n" for i, value in enumerate(values))
    (run / "eval.csv").write_text(f"mode,step,{metric}\n{rows}")


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def test_every_group_is_drawn_by_its_metric(folder, capsys):
    plot_runs([])
    pictures = {path.name for path in (folder / "runs" / "plots").iterdir()}
    assert pictures == {"accuracy.png", "accuracy.svg", "return.png", "return.svg"}
    labels = texts(folder / "runs" / "plots" / "accuracy.svg")
    assert {"Digits", "accuracy", "step", "Small", "Large"} <= set(labels)
    assert not {"default", "CartPole-v1"} & set(labels)
    with Image.open(folder / "runs" / "plots" / "accuracy.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours  # A line for either model.
    assert (
        "Written to runs/plots/accuracy.png and runs/plots/accuracy.svg" in capsys.readouterr().out
    )


def test_the_table_gives_last_value_deviation_and_seeds(folder, capsys):
    plot_runs([])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Digits", "Small", "accuracy", "0.6", "±", "0.14", "2", "200"] in lines
    assert ["Digits", "Large", "accuracy", "0.9", "±", "0", "2", "200"] in lines
    assert ["CartPole-v1", "Small", "return", "200", "1", "200"] in lines


def test_a_narrow_console_still_says_which_runs_they_are(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    plot_runs([])
    lines = capsys.readouterr().out.splitlines()
    assert "Digits, Small: accuracy 0.6 ± 0.14 (2 seeds, at step 200)" in lines
    assert "CartPole-v1, Small: return 200 (1 seed, at step 200)" in lines


def test_a_metric_leaves_out_the_runs_without_it(folder, capsys):
    plot_runs(["runs", "metric=return"])
    assert not (folder / "runs" / "plots" / "accuracy.png").exists()
    out = capsys.readouterr().out
    assert "Runs without return: runs/default/Large/Digits, runs/default/Small/Digits" in out


def test_a_single_group_needs_no_legend(folder):
    plot_runs(["runs/default/Large"])
    labels = texts(folder / "runs/default/Large/plots/accuracy.svg")
    assert "Digits" in labels
    assert "Large" not in labels


@pytest.mark.parametrize(
    ("out", "written"),
    [("a/lr=0.1", ["lr=0.1.png", "lr=0.1.svg"]), ("a/b.pdf", ["b.pdf"]), ("a/b.png", ["b.png"])],
)
def test_out_names_the_picture_and_its_format(folder, out, written):
    plot_runs(["metric=accuracy", f"out={out}"])
    assert sorted(path.name for path in (folder / "a").iterdir()) == written


def test_runs_that_are_not_comparable_are_told(folder, capsys):
    (folder / "runs/default/Large/Digits/1/config.yaml").write_text("seed: 1\ntasks: 5\n")
    plot_runs([])
    told = "Runs that differ in more than their seed (tasks): runs/default/Large/Digits"
    assert told in capsys.readouterr().out


def test_a_sequence_is_not_drawn_over_a_plain_run(folder, capsys):
    (folder / "runs/default/Large/Digits/1/config.yaml").write_text("tasks: 5\nscenario: task\n")
    write_run("runs/other/Large/Digits", 0, "accuracy", [0.1, 0.2])
    config = "dataset: {_target_: Digits, subset: [0, 1]}\nonline: true\n"
    (folder / "runs/other/Large/Digits/0/config.yaml").write_text(config)
    plot_runs([])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(line[:3] == ["Digits,", "tasks=5,", "scenario=task"] for line in lines)
    titles = {"Digits", "Digits, tasks=5, scenario=task", "Digits, online=true, subset=[0, 1]"}
    assert titles <= set(texts(folder / "runs/plots/accuracy.svg"))


def test_names_with_signs_that_mean_something_to_matplotlib_are_drawn_as_they_are(folder):
    for experiment in ("_a$b$", "$\\frac$[red]"):
        write_run(f"odd/{experiment}/_M/$D$", 0, "loss", [1.0, 0.5])
    plot_runs(["odd"])
    assert {"$D$", "$\\frac$[red]"} <= set(texts(folder / "odd" / "plots" / "loss.svg"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["metric=acuracy"], r"recorded acuracy\. Did you mean `accuracy`\? There are: .*return"),
        (["metrik=loss"], r"`metrik=loss` is not understood\. Did you mean `metric`\?"),
        (["rnus"], r"No folder `rnus`\. Did you mean `runs`\?"),
        (["metric="], r"`metric=` has no value"),
        (["out=x.jpg"], r"out=x\.jpg must end in \.png, \.svg, \.pdf, or have no suffix"),
        (["runs", "runs/default"], r"Only one folder .* not 2: runs, runs/default"),
        (["out=x"], r"one for each of return and accuracy\. Choose one of them with metric="),
        (["metrik=loss", "rnus"], r"(?s)`metrik=loss`.*`rnus`.*Usage: ml plot \[FOLDER\]"),
        (["metric=accuracy", "out=runs/default/Large/Digits/0/eval.csv/x"], r"Cannot write to"),
    ],
)
def test_a_wrong_word_is_answered_by_what_would_be_right(folder, words, says):
    with pytest.raises(ConfigError, match=says):
        plot_runs(words)


def test_a_folder_without_runs_says_what_a_run_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"No runs below `runs`: .* holds config\.yaml"):
        plot_runs([])


def test_runs_without_evaluations_are_not_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs/default/DQN/CartPole-v1/0"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "train.csv").touch()
    with pytest.raises(
        ConfigError, match=r"No run below `runs` has been evaluated.*eval_episodes=0"
    ):
        plot_runs([])


def test_plotting_needs_neither_torch_nor_pyplot(folder):
    code = (
        "import sys; from antelope.launcher.pictures.compare import plot_runs; plot_runs([]); "
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    root = Path(__file__).parents[3]
    env = {"PYTHONPATH": str(root), "PATH": "", "HOME": str(folder)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)


def test_runs_that_are_told_the_task_are_drawn_by_that_accuracy(folder, capsys):
    for group, scenario in (("Small", "task"), ("Large", "class")):
        run = Path("runs/told", group, "Digits", "0")
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"seed: 0\ntasks: 5\nscenario: {scenario}\n")
        (run / "eval.csv").write_text("mode,step,accuracy,task_il_accuracy\neval,100,0.2,0.9\n")
    plot_runs(["runs/told"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Digits,", "tasks=5", "Large", "accuracy", "0.2", "1", "100"] in lines
    told = next(line for line in lines if "task_il_accuracy" in line)
    assert told[-3] == "0.9"
    plot_runs(["runs/told", "metric=task_il_accuracy"])
    assert "Large" in capsys.readouterr().out
