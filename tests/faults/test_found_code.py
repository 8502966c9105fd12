"""Row 44 of the fault matrix: a downloaded folder whose files are called like what we import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from antelope import ConfigError, ml
from antelope.envs import workers
from antelope.launcher.ml import main
from antelope.launcher.settings.imports import classes_here

pytestmark = pytest.mark.row(44)
ML = str(Path(sys.executable).with_name("ml"))
_LIBRARIES = (
    *("numpy", "hydra", "torch", "torchvision", "matplotlib", "rich", "omegaconf", "yaml", "PIL"),
    *("safetensors", "gymnasium", "cloudpickle", "filelock", "tensorboard", "wandb", "mlflow"),
    *("timm", "ale_py", "moviepy", "pandas", "pyarrow", "datasets", "torchmetrics", "triton"),
    *("sklearn", "scipy", "tqdm", "antlr4", "pygame", "sitecustomize", "typing_extensions"),
)
# Defaults, and names that their users type.
_CLASSES = ("AdamW", "SGD", "CrossEntropyLoss", "Digits", "AC2Agent", "Classifier", "MNIST")


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """A run directory in which every file leaves a trace if it is imported."""
    folder = tmp_path / "run"
    ml(dataset="Digits", train_steps=4, plot=False, progress=False, path=str(folder))
    trace = f"open({str(tmp_path)!r} + '/ran_' + __name__, 'w').close()\n"
    for name in {*_LIBRARIES, *sys.stdlib_module_names}:
        (folder / f"{name}.py").write_text(f"{trace}raise ImportError\n")
    for name in _CLASSES:
        (folder / f"of_{name}.py").write_text(f"{trace}class {name}: pass\n")
    for name in "evil_backend", "hydra_plugins/plugin", "evil_env/__init__":
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(f"{trace}def start(): pass\n")
    # What a package of environments, a device of torch and one of gymnasium's plugins install.
    about = folder / "evil-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nRequires-Dist: gymnasium\n")
    (about / "top_level.txt").write_text("evil_env\n")
    (about / "entry_points.txt").write_text(
        "[torch.backends]\nevil = evil_backend:start\n[gymnasium.envs]\n__root__ = evil_env:start\n"
    )
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["plot", "."],
        ["eval", "."],
        ["load=.", "train_steps=2", "path=../new"],
        ["devices=2", "train_steps=2", "path=../new"],
        ["-m", "seed=1,2", "jobs=2", "train_steps=2"],
    ],
    ids=" ".join,
)
def test_a_command_in_a_downloaded_folder_imports_nothing_from_it(
    downloaded: Path, words: list[str]
) -> None:
    done = subprocess.run([ML, *words], cwd=downloaded, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(downloaded.parent.glob("ran_*")) == []


@pytest.fixture
def here(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory which is a run, with a class in a file."""
    ml(dataset="Digits", train_steps=4, plot=False, progress=False, path=str(workdir))
    (workdir / "net.py").write_text(
        "from neighbour import WIDTH\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_features, out_features):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_features, WIDTH), nn.Linear(WIDTH, 10))\n"
    )
    (workdir / "neighbour.py").write_text("WIDTH = 7\n")
    (workdir / "optimiser.py").write_text("raise SystemExit('ran')\nclass AdamW: pass\n")
    monkeypatch.setattr(sys, "argv", ["ml"])
    return workdir


def test_a_class_in_a_folder_that_is_read_as_data_is_imported_only_with_its_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["eval", ".", "model=Net"], ["load=.", "model=Net", "path=new"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert "imported if you name the file: model=net.py:Net" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # Its weights are not those of the run.
        main(["load=.", "model=net.py:Net", "path=new"])
    assert sys.modules["neighbour"].WIDTH == 7


def test_a_default_is_not_looked_up_among_the_files_here(here: Path) -> None:
    ml(dataset="Digits", train_steps=2, plot=False, progress=False, path="new")
    with pytest.raises(SystemExit, match="ran"):
        ml(dataset="Digits", optim="AdamW", train_steps=2, plot=False, path="newer")


def test_neighbours_of_a_named_file_come_first_and_are_last_afterwards(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The installed package of that name, which another test may have imported.
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    (workdir / "datasets.py").write_text("MINE = 1\n")
    (workdir / "uses.py").write_text(
        "import sys\nfrom datasets import MINE\nFIRST = sys.path[0]\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, in_features, out_features):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(in_features, out_features))\n"
        "        self.last = sys.path[-1]\n"
    )
    before = list(sys.path)
    run = ml(model="uses.py:Net", dataset="Digits", train_steps=2, plot=False, path="run")
    assert run.agent.last == str(workdir)
    assert str(workdir) == sys.modules["uses"].FIRST
    assert sys.path == before


def test_the_working_directory_comes_last_where_python_searches_it(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", "/first", str(workdir), "/second"])
    with pytest.raises(SystemExit):
        main(["--version"])
    assert sys.path == ["/first", "/second", ""]


def test_a_fifo_called_like_a_source_file_is_not_waited_for(workdir: Path) -> None:
    os.mkfifo(workdir / "model.py")
    assert classes_here() == {}
    with pytest.raises(ConfigError, match="No model `Missing`"):
        ml(model="Missing")


def test_processes_of_environments_start_without_the_working_directory(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "can_fork", lambda: False)  # As with a GPU.
    (workdir / "multiprocessing").mkdir()
    (workdir / "multiprocessing" / "__init__.py").write_text(
        "open('ran', 'w')\nraise ImportError\n"
    )
    envs = workers.Workers(lambda: gymnasium.make("CartPole-v1"), 1)
    envs.close()
    assert not (workdir / "ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ
