"""Adding one thing takes one file and at most one line: each test adds it to a copy of the tree.

The copy is used as a newcomer would: from a console, in another process, in a folder of its own.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("agents", "antelope", "envs", "hyperparams", "launcher", "replay")

# Several commands in one process: importing torch for each would take most of the time.
CONSOLE = """
import contextlib, io, json, os, sys
from pathlib import Path
import antelope
from antelope.launcher.ml import _main

assert Path(antelope.__file__).is_relative_to(sys.argv[1]), antelope.__file__
sys.path.insert(0, os.getcwd())
results = []
for line in json.loads(sys.argv[2]):
    if line.startswith(">>> "):
        print(*results, sep="\\n", file=sys.stderr)  # Seen if the line raises.
        exec(line[4:])
        continue
    words = line.split()[1:]
    os.environ["COMP_LINE"] = " ".join(words[1:])
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = _main(words)
    results.append((code, said.getvalue()))
print("\\n" + json.dumps(results))
"""


@dataclass(frozen=True)
class Answer:
    code: int
    text: str

    @property
    def flat(self) -> str:
        return " ".join(self.text.split())


class Tree:
    """A copy of the tree, and a folder to work in."""

    def __init__(self, folder: Path):
        self.root, self.work = folder / "tree", folder / "work"
        self.work.mkdir()
        for name in FOLDERS:
            # With __pycache__, which saves a second.
            shutil.copytree(ROOT / name, self.root / name)

    def write(self, path: str, text: str) -> None:
        assert not (self.root / path).exists()
        (self.root / path).write_text(dedent(text).lstrip("\n"))

    def insert(self, path: str, after: str, line: str) -> None:
        """One line into a file, directly after the only place where `after` stands."""
        text = (self.root / path).read_text()
        assert text.count(after) == 1, f"{after} stands {text.count(after)} times in {path}"
        (self.root / path).write_text(text.replace(after, after + line))

    def run(self, *lines: str) -> list[Answer]:
        """What each `ml ...` answers; a line after `>>> ` is Python, which must not raise."""
        environment = os.environ | {"PYTHONPATH": str(self.root)}
        process = subprocess.run(
            [sys.executable, "-c", CONSOLE, str(self.root), json.dumps(lines)],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        return [Answer(*result) for result in json.loads(process.stdout.splitlines()[-1])]

    def evals(self, run: str) -> list[dict[str, str]]:
        with (self.work / run / "eval.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_strategy_is_one_file_and_one_line(tree: Tree) -> None:
    tree.write(
        "agents/continual/half.py",
        '''
        """Half the loss."""

        from torch import Tensor, nn

        from ...replay import Batch
        from .strategy import Strategy


        class Half(Strategy):
            """Learn from a share of the loss."""

            def __init__(self, share: float = 0.5):
                self.share = share

            def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
                return self.share * loss
        ''',
    )
    tree.insert(
        "agents/continual/__init__.py", '\n        "naive": "Naive",', '\n        "half": "Half",'
    )
    words = "tasks=5 train_steps=4 log_every=1 plot=false progress=false"
    listed, completed, typo, argument, ran, naive, zero = tree.run(
        "ml strategies",
        "ml --complete ml strategy=ha",
        "ml strategy=hlaf",
        f"ml {words} strategy=half strategy.shar=0",
        f"ml {words} strategy=half path=runs/half",
        f"ml {words} path=runs/naive",
        f"ml {words} strategy=[er,half] strategy.half.share=0 path=runs/zero",
        ">>> from antelope import Half",
        ">>> import torch; model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))",
        ">>> antelope.Strategies(model, ['half'], antelope.tasks('Digits', tasks=5).spec)",
    )
    assert "half" in listed.text.split("\n\n")[0].replace(",", " ").split()
    assert completed.text.split() == ["half"]
    assert typo.code == 2
    assert "half" in typo.text
    assert argument.code == 2
    assert "Did you mean `share`?" in argument.text
    assert [ran.code, naive.code, zero.code] == [0, 0, 0], ran.text + zero.text
    config = (tree.work / "runs/half/config.yaml").read_text()
    assert "_target_: antelope.agents.continual.half.Half" in config

    def losses(run: str) -> list[float]:
        with (tree.work / run / "train.csv").open() as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    assert losses("runs/half")[0] == pytest.approx(losses("runs/naive")[0] / 2)
    assert set(losses("runs/zero")) == {0.0}


def test_an_agent_is_one_file_and_one_name(tree: Tree) -> None:
    tree.write(
        "agents/table.py",
        '''
        """Rewards of actions, whatever is observed."""

        import torch
        from torch import nn


        class Table(nn.Module):
            """Mean rewards."""

            def __init__(self, num_actions: int, rate: float = 0.1):
                super().__init__()
                self.rate, self.value = rate, nn.Parameter(torch.zeros(num_actions))

            def forward(self, obs):
                return self.value.expand(len(obs), -1)

            def learn(self, replay, log):
                batch = next(replay)
                value = self(batch.obs).gather(-1, batch.action[:, None]).squeeze(-1)
                error = log.error = (value - batch.reward).square().mean()
                return self.rate * error
        ''',
    )
    tree.insert("agents/__init__.py", '*("Random", "SAC", "TD3",', ' "Table",')
    words = "train_steps=60 seed_steps=20 eval_episodes=2 log_every=10 progress=false"
    listed, completed, typo, argument, ran, played, plotted = tree.run(
        "ml models",
        "ml --complete ml agent=Tab",
        "ml env=CartPole-v1 agent=Tabel",
        "ml env=CartPole-v1 agent=Table model.rat=1",
        f"ml env=CartPole-v1 agent=Table {words}",
        "ml play runs/default/Table/CartPole-v1/0 episodes=2",
        "ml plot",
        ">>> run = antelope.load('runs/default/Table/CartPole-v1/0')",
        ">>> assert type(run.agent) is antelope.agents.Table and run.play(1)",
    )
    assert "Table" in listed.text.split("\n\n")[0].replace(",", " ").split()
    assert completed.text.split() == ["Table"]
    assert typo.code == 2
    assert "Table" in typo.text
    assert argument.code == 2
    assert "Did you mean `rate`?" in argument.text
    assert [ran.code, played.code, plotted.code] == [0, 0, 0], ran.text + played.text + plotted.text
    run = tree.work / "runs/default/Table/CartPole-v1/0"
    assert "error" in (run / "train.csv").read_text().splitlines()[0]
    assert (run / "plots" / "learning_curve.png").exists()
    assert float(tree.evals(str(run))[-1]["return"]) >= 8


def test_an_environment_is_one_file_and_one_name(tree: Tree) -> None:
    tree.write(
        "envs/corridor.py",
        '''
        """A corridor to walk to the right."""

        import gymnasium
        import numpy as np
        from gymnasium import spaces


        class Corridor(gymnasium.Env):
            """The reward is 1 at the right end."""

            def __init__(self, length: int = 3, render_mode=None):
                self.length, self.render_mode, self.at = length, render_mode, 0
                self.observation_space = spaces.Box(0.0, length, (1,), np.float32)
                self.action_space = spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):
                super().reset(seed=seed)
                self.at = 0
                return np.float32([self.at]), {}

            def step(self, action):
                self.at = max(0, self.at + 2 * int(action) - 1)
                over = self.at == self.length
                return np.float32([self.at]), float(over), over, False, {}
        ''',
    )
    tree.insert("envs/__init__.py", '"env": ("Atari",', ' "Corridor",')
    words = "time_limit=9 agent=DQN train_steps=60 seed_steps=20 eval_episodes=2 progress=false"
    listed, completed, typo, argument, ran, many, played = tree.run(
        "ml envs",
        "ml --complete ml env=Corr",
        "ml env=Coridor",
        "ml env=Corridor env.lenght=4",
        f"ml env=Corridor env.length=2 num_envs=2 {words}",
        f"ml env=[Corridor,Recall] {words}",
        "ml play runs/default/DQN/Corridor/0 episodes=2",
        ">>> from antelope.envs import Corridor",
    )
    assert "Corridor" in listed.text.split("\n\n")[0].replace(",", " ").split()
    assert completed.text.split() == ["Corridor"]
    assert typo.code == 2
    assert "`Corridor`" in typo.text
    assert argument.code == 2
    assert "Did you mean `length`?" in argument.text
    assert [ran.code, played.code] == [0, 0], ran.text + played.text
    assert many.code == 2  # Recall's spaces are others.
    assert "Corridor" in many.text
    assert 0 <= float(tree.evals("runs/default/DQN/Corridor/0")[-1]["return"]) <= 1


def test_a_data_set_is_one_file_and_one_name(tree: Tree) -> None:
    tree.write(
        "envs/rings.py",
        '''
        """Two rings around each other."""

        import torch
        from torch.utils.data import Dataset


        class Rings(Dataset):
            """Points `[2]` on the inner or the outer ring."""

            def __init__(self, points: int = 200):
                angle = torch.linspace(0, 20, points)
                self.label = torch.arange(points) % 2
                self.point = torch.stack((angle.sin(), angle.cos()), 1) * (1 + self.label[:, None])

            def __len__(self):
                return len(self.label)

            def __getitem__(self, index):
                return self.point[index], int(self.label[index])
        ''',
    )
    tree.insert("envs/__init__.py", '"dataset": ("Digits",', ' "Rings",')
    listed, completed, typo, argument, ran, tasks = tree.run(
        "ml datasets",
        "ml --complete ml dataset=Ri",
        "ml dataset=Rigns",
        "ml dataset=Rings dataset.point=9",
        "ml dataset=Rings dataset.points=400 epochs=5 progress=false",
        "ml dataset=Rings tasks=2 strategy=er train_steps=5 progress=false path=runs/tasks",
        ">>> from antelope.envs import Rings; antelope.tasks('Rings', tasks=2)",
    )
    assert "Rings" in listed.text.split("\n\n")[0].replace(",", " ").split()
    assert completed.text.split() == ["Rings"]
    assert typo.code == 2
    assert "`Rings`" in typo.text
    assert argument.code == 2
    assert "Did you mean `points`?" in argument.text
    assert [ran.code, tasks.code] == [0, 0], ran.text + tasks.text
    assert float(tree.evals("runs/default/AC2Agent/Rings/0")[-1]["accuracy"]) > 0.9
    assert len(list((tree.work / "runs/tasks/plots").glob("accuracy_matrix.png"))) == 1


def test_a_preset_is_one_file(tree: Tree) -> None:
    tree.write(
        "hyperparams/task/classify/hasty.yaml",
        """
        # @package _global_
        # The digits in a hurry
        defaults: [classify/digits, _self_]
        epochs: 1
        lr_decay_epochs: null
        optim:
          _target_: SGD
          lr: 0.1
        """,
    )
    listed, completed, typo, composed, ran, mine = tree.run(
        "ml tasks",
        "ml --complete ml task=classify/h",
        "ml task=classify/hastie",
        "ml --cfg job task=classify/hasty",
        "ml task=classify/hasty plot=false progress=false path=runs/hasty",
        ">>> Path('mine.yaml').write_text('# @package _global_\\ndefaults: [classify/hasty]\\n')",
        "ml --cfg job task=mine",
    )
    assert "task=classify/hasty The digits in a hurry" in listed.flat
    assert completed.text.split() == ["classify/hasty"]
    assert typo.code == 2
    assert "`classify/hasty`" in typo.text
    for answer in composed, mine:  # One of a user's own may build on it.
        assert "_target_: SGD" in answer.text
        assert "\nepochs: 1\n" in answer.text
    assert ran.code == 0, ran.text
    assert float(tree.evals("runs/hasty")[-1]["accuracy"]) > 0.5


def test_a_mistake_in_a_preset_names_its_file_and_line(tree: Tree) -> None:
    tree.write(
        "hyperparams/task/classify/hasty.yaml",
        """
        # @package _global_
        # The digits in a hurry
        epocs: 1
        """,
    )
    (answer,) = tree.run("ml task=classify/hasty")
    assert answer.code == 2
    assert "Did you mean `epochs`?" in answer.text
    assert "classify/hasty" in answer.text


def test_a_setting_is_one_line_and_one_use(tree: Tree) -> None:
    tree.insert(
        "hyperparams/config.yaml",
        "\n# Runs\n",
        "greetings: 2                    # int 1..9 | how often a run says hello\n",
    )
    train = (tree.root / "launcher/train.py").read_text()
    signature = next(line for line in train.splitlines() if line.startswith("def train("))
    tree.write(
        "launcher/greeting.py", "def greet(settings):\n    print('hello ' * settings.greetings)\n"
    )
    use = "\n    from .greeting import greet; greet(settings)"
    tree.insert("launcher/train.py", signature, use)
    words = "train_steps=2 plot=false progress=false"
    helped, completed, typo, wrong, composed, default, given, preset = tree.run(
        "ml --help",
        "ml --complete ml gree",
        "ml greting=3",
        "ml greetings=10",
        "ml --cfg job greetings=4",
        f"ml {words}",
        f"ml {words} greetings=3 path=runs/three",
        ">>> Path('mine.yaml').write_text('# @package _global_\\ngreetings: 5\\n')",
        f"ml {words} task=mine",
    )
    assert "greetings=2 how often a run says hello (int 1..9)" in helped.flat
    assert completed.text.split() == ["greetings="]
    assert typo.code == 2
    assert "Did you mean `greetings`?" in typo.text
    assert wrong.code == 2
    assert "greetings=10" in wrong.text
    assert "greetings: 4" in composed.text
    assert [answer.text.count("hello") for answer in (default, given, preset)] == [2, 3, 5]
    assert "greetings: 3" in (tree.work / "runs/three/config.yaml").read_text()


def test_a_metric_is_one_file_and_one_line(tree: Tree) -> None:
    tree.write(
        "launcher/metrics/median_error.py",
        '''
        """Median absolute error."""


        def median_error(output, label):
            return float((output.double() - label.double()).abs().median())
        ''',
    )
    entry = '\n    Metric("median_error", "values", "median_error", "less", panel=True),'
    tree.insert("launcher/metrics/__init__.py", "\nMETRICS = (", entry)
    words = "dataset=Diabetes epochs=2 progress=false"
    ran, plotted, typo = tree.run(
        f"ml {words}",
        "ml plot metric=median_error",
        "ml plot metric=median_eror",
        f">>> run = antelope.ml({', '.join(map(repr, words.split()))}, path='again')",
        ">>> assert 0 < run.metrics['median_error'] < 3 * run.metrics['mae'], run.metrics",
        ">>> from antelope.launcher.metrics import better; assert better('median_error') == 'less'",
    )
    assert ran.code == 0, ran.text
    run = "runs/default/AC2Agent/Diabetes/0"
    assert all(float(row["median_error"]) > 0 for row in tree.evals(run))
    assert "median_error" in json.loads((tree.work / run / "status.json").read_text())["metrics"]
    assert "median_error" in (tree.work / run / "plots" / "learning_curve.svg").read_text()
    assert plotted.code == 0, plotted.text
    assert "median_error" in plotted.text
    assert list((tree.work / "runs/plots").glob("median_error*"))
    assert typo.code == 2
    assert "`median_error`" in typo.text
