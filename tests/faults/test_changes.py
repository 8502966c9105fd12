"""A resumed run knows its data, its settings and its rows: what changed is refused, or said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import antelope.envs.items
from antelope import CheckpointError, ConfigError, ml
from antelope.envs import fingerprint
from antelope.launcher.settings.schema import schema
from antelope.replay import Table

QUIET: dict[str, Any] = {"plot": False, "progress": False, "log_every": 1, "save_every": 4}


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int, hidden: int = 4, slope: float = 0.0):
        super().__init__()
        self.slope = slope
        self.first = nn.Linear(in_features, hidden)
        self.last = nn.Linear(hidden, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(nn.functional.leaky_relu(self.first(obs.flatten(1).float()), self.slope))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begin(**settings: Any) -> dict[str, Any]:
    """Run a few steps; returns the settings that continue the run."""
    settings = {"model": Net, "train_steps": 8, "batch_size": 8, "path": "run", **QUIET, **settings}
    ml(**settings)
    return {**settings, "train_steps": 12, "resume": True}


def files(folder: str = "run") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refused(match: str, **settings: Any) -> None:
    """The run is refused, and its directory left as it was."""
    before = files()
    with pytest.raises(ConfigError, match=match):
        ml(**settings)
    assert files() == before


@pytest.mark.row(10)
@pytest.mark.parametrize(("before", "after"), [(8, 16), (16, 8)])
def test_epochs_are_counted_in_batches_of_the_new_size(before: int, after: int) -> None:
    settings = {**QUIET, "model": Net, "dataset": arrays(), "path": "run", "test_dataset": arrays()}
    ml(**settings, epochs=2, batch_size=before)
    settings |= {"batch_size": after, "override": ["batch_size"], "resume": True}
    first, more = 2 * -(-40 // before), -(-40 // after)
    run = ml(**settings, epochs=3)
    assert [row["step"] for row in run.history if row["mode"] == "eval"][-1] == first + more
    run = ml(**settings, epochs=5, eval_every=None)  # The size has not changed again.
    assert run.replay.passes == 5
    steps = [row["step"] for row in run.history if row["mode"] == "eval"]
    assert steps[-3:] == [first + more, first + 2 * more, first + 3 * more]


# ----------------------------------------------------------------------------------- row 47: data

Arrays = tuple[np.ndarray, np.ndarray]


def arrays() -> Arrays:
    draw = np.random.default_rng(0)
    return draw.integers(0, 255, (40, 1, 5, 5), np.uint8), draw.integers(0, 3, 40)


def _pixel(x: np.ndarray, y: np.ndarray) -> Arrays:
    x[17, 0, 2, 2] ^= 1
    return x, y


def _label(x: np.ndarray, y: np.ndarray) -> Arrays:
    y[5] = (y[5] + 1) % 3
    return x, y


CHANGES: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Arrays], str]] = {
    "a pixel": (_pixel, "data: inputs of the training rows have changed"),
    "a label": (_label, "data: labels of the training rows have changed"),
    "added": (lambda x, y: (x[[*range(40), 0]], y[[*range(40), 0]]), "41 training rows; .* 40"),
    "removed": (lambda x, y: (x[1:], y[1:]), "39 training rows; there were 40"),
    "reordered": (lambda x, y: (x[::-1].copy(), y[::-1].copy()), "rows are in another order"),
}


@pytest.mark.row(47)
def test_rows_that_changed_are_refused_unless_overridden() -> None:
    x, y = arrays()
    again = begin(dataset=(x, y), test_dataset=(x[:9], y[:9]))
    for change, message in CHANGES.values():
        other = change(x.copy(), y.copy())
        refused(rf"(?s){message}.*override=\[data\]", **{**again, "dataset": other})
    refused("of the held-out rows have", **{**again, "test_dataset": (x[9:18], y[9:18])})
    shutil.copytree("run", "same")
    run = ml(**{**again, "dataset": (x.copy(), y.copy()), "path": "same"})
    assert run.history[-1]["step"] == 12
    # Fewer rows than the pass in progress had left, too.
    run = ml(**{**again, "dataset": (x[:17], y[:17]), "override": "data"})
    assert run.history[-1]["step"] == 12


class Items(Dataset[Any]):
    """Rows that are read one by one."""

    def __init__(self, first: int = 0, *, noise: float = 0.0, n: int = 40):
        self.first, self.noise, self.n = first, noise, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.full((4,), float(i + self.first)) + self.noise * torch.rand(4), i % 3


@pytest.mark.row(47)
@pytest.mark.parametrize("lazy", [False, True])
def test_items_that_changed_are_refused(lazy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lazy:  # As if they did not fit in memory.
        monkeypatch.setattr(antelope.envs.items, "_MEMORY_SHARE", 1e-12)
    again = begin(dataset=Items())
    refused("inputs of the training rows have changed", **{**again, "dataset": Items(1)})
    assert ml(**{**again, "dataset": Items()}).history[-1]["step"] == 12


@pytest.mark.row(47)
def test_random_transforms_are_no_change_but_another_number_of_items_is() -> None:
    again = begin(dataset=Items(noise=1.0))
    refused("28 training rows; there were 32", **{**again, "dataset": Items(noise=1.0, n=35)})
    assert ml(**again).history[-1]["step"] == 12


@pytest.mark.row(47)
def test_a_column_that_was_renamed_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    target = np.arange(40) % 2
    again = begin(dataset=(frame, target))
    other = frame.rename(columns={"b": "z"})
    refused("columns are a, z; they were a, b", **{**again, "dataset": (other, target)})


def folder(path: str, *, seed: int = 0, each: int = 12, kind: str = "png") -> str:
    draw = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        os.makedirs(f"{path}/{name}")
        for i in range(each):
            pixels = draw.integers(0, 255, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).save(f"{path}/{name}/{i}.{kind}")
    return str(Path(path).absolute())


@pytest.mark.row(47)
def test_a_folder_may_move_but_not_change() -> None:
    again = begin(dataset=folder("there/pets"))
    shutil.copytree("there/pets", "elsewhere/pets")
    for stale in Path("elsewhere").rglob("*.png"):
        os.utime(stale, (1, 1))  # A copy has other times.
    moved = {**again, "dataset": str(Path("elsewhere/pets").absolute())}
    shutil.copytree("run", "moved")
    assert ml(**{**moved, "path": "moved"}).history[-1]["step"] == 12
    os.rename("elsewhere/pets/cat/3.png", "elsewhere/pets/cat/30.png")
    refused("files were added, removed, renamed, or changed in size", **moved)
    refused("inputs of the training rows", **{**again, "dataset": folder("other/pets", seed=1)})
    os.rename("there/pets/cat", "there/pets/kitten")
    refused("classes are dog, kitten; they were cat, dog", **again)


@pytest.mark.row(47)
def test_a_picture_that_changed_but_not_its_size_is_refused() -> None:
    again = begin(dataset=folder("pets", kind="bmp"))
    file = Path("pets/cat/3.bmp")
    data = bytearray(file.read_bytes())
    data[-5] ^= 64
    file.write_bytes(data)
    refused("inputs of the (training|held-out) rows have changed", **again)


@pytest.mark.row(47)
def test_pixels_of_another_decoder_are_not_compared() -> None:
    table = Table(obs=torch.arange(8, dtype=torch.uint8), label=torch.zeros(8).long())
    other = Table(obs=torch.arange(1, 9, dtype=torch.uint8), label=torch.zeros(8).long())
    one = fingerprint.of_rows(table, 8, decoder="Pillow 11")
    assert list(fingerprint._other_rows(one, fingerprint.of_rows(other, 8), "x")) == []
    assert fingerprint._other_rows(one, fingerprint.of_rows(other, 8, decoder="Pillow 11"), "x")


@pytest.mark.row(47)
def test_a_large_column_is_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.arange(6000, dtype=torch.uint8)[:, None].repeat(1, 3)
    whole = fingerprint._numbers(rows, 6000)
    monkeypatch.setattr(fingerprint, "_CHUNK_BYTES", 99)
    assert (fingerprint._numbers(rows, 6000) == whole).all()
    monkeypatch.setattr(fingerprint, "_WHOLE_BYTES", 1000)
    assert (fingerprint._numbers(rows, 6000) == whole[::1]).all()  # Few enough for a sample.
    monkeypatch.setattr(fingerprint, "_SAMPLE_ROWS", (10, 100))
    assert (fingerprint._numbers(rows, 6000) == whole[::60]).all()


def cart_pole(**arguments: Any) -> Callable[..., Any]:
    def make(**more: Any) -> Any:
        return gymnasium.make("CartPole-v1", **arguments, **more)

    return make


@pytest.mark.row(47)
def test_another_environment_or_other_arguments_or_wrappers_are_refused() -> None:
    act = {"model": "DQN", "seed_steps": 2, "eval_episodes": 1, "learn_every": 2}
    again = begin(env="CartPole-v1", **act)
    refused("has the id Acrobot-v1", **{**again, "env": "Acrobot-v1"})
    refused("env_wrappers", **{**again, "env_wrappers": "FlattenObservation"})
    refused("sutton_barto", **{**again, "env": cart_pole(sutton_barto_reward=True)})
    refused("max_episode_steps", **{**again, "env": cart_pole(max_episode_steps=30)})
    refused("num_envs: 1 -> 2\n`num_envs` cannot change", **{**again, "num_envs": 2})
    run = ml(**{**again, "env": cart_pole()})  # The same, named otherwise.
    assert run.history[-1]["step"] == 12


@pytest.mark.row(47)
def test_another_offline_replay_is_refused_and_a_moved_one_is_not() -> None:
    act = {"env": "CartPole-v1", "model": "DQN", "eval_episodes": 1}
    begin(**act, path="one", seed_steps=2)
    begin(**act, path="two", seed_steps=2, seed=1)
    again = begin(**act, offline="one")
    shutil.copytree("one", "moved/one")
    refused("the transitions of `offline` are other ones", **{**again, "offline": "two"})
    assert ml(**{**again, "offline": "moved/one"}).history[-1]["step"] == 12
    longer = {**again, "train_steps": 16}
    assert ml(**{**longer, "offline": "two", "override": "data"}).history[-1]["step"] == 16


SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from antelope import ml

class Net(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer, self.calls = nn.Linear(in_features, out_features), 0

    def learn(self, replay):
        self.calls += 1
        if self.calls == 9 and "kill" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        batch = next(replay)
        return nn.functional.cross_entropy(self.layer(batch.obs.flatten(1)), batch.label)

    def forward(self, obs):
        return self.layer(obs.flatten(1))

ml(*[w for w in sys.argv[1:] if w != "kill"], model=Net, dataset="pets", path="run", plot=False,
   progress=False, save_every=4, train_steps=12, batch_size=8)
"""


def _script(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "script.py", *words], capture_output=True, text=True, env=environment
    )


@pytest.mark.row(47)
def test_images_that_changed_between_a_kill_and_the_resumption_are_refused() -> None:
    Path("script.py").write_text(SCRIPT)
    folder("pets")
    assert _script("kill").returncode == -9
    shutil.copytree("run", "killed")
    os.remove("pets/dog/5.png")
    os.remove("run/.lock")  # Of the killed process.
    os.remove("run/.owner")
    before = files()
    failed = _script("resume=true")
    assert "files were added, removed" in failed.stderr
    assert "rows; there were" in failed.stderr
    after = files()
    # It said that it was running, which is not true.
    status = json.loads(after.pop(Path("run/status.json")))
    assert (status["status"], status["reason"]) == ("interrupted", "Its process died.")
    del before[Path("run/status.json")]
    assert after == before
    went_on = _script("resume=true", "override=[data]")
    assert went_on.returncode == 0, went_on.stderr
    assert json.loads(Path("run/status.json").read_text())["step"] == 12


# -------------------------------------------------------------------------------- row 10: settings


@pytest.mark.row(10)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 5}, r"seed: 0 -> 5\n.*override=\[seed\]"),
        (
            {"seed": 5, "batch_size": 4},
            r"batch_size: 8 -> 4\n  seed: 0 -> 5\n.*\[batch_size,seed\]",
        ),
        ({"model.slope": 0.1}, r"model.slope: 0.0 -> 0.1\n.*override=\[model.slope\]"),
        ({"standardize": False}, r"override=\[standardize\]"),
        ({"tasks": 2}, "`tasks` cannot change when a run is resumed"),
        ({"strategy": "er"}, "`strategy` cannot change when a run is resumed"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_it_learnt_from_may_not_change(
    settings: dict[str, Any], message: str
) -> None:
    again = begin(dataset="Digits")
    refused(message, **{**again, **settings})
    if "override" in message:
        run = ml(**{**again, **settings, "override": list(settings)})
        assert run.history[-1]["step"] == 12


@pytest.mark.row(10)
def test_the_same_said_otherwise_is_no_change(capsys: pytest.CaptureFixture[str]) -> None:
    again = begin(dataset="Digits")
    said = {"optim": torch.optim.AdamW, "data_dir": "elsewhere", "save_every": 3}
    ml("model.hidden=4", **{**again, **said, "train_steps": 8})
    assert "Changed" not in capsys.readouterr().err


@pytest.mark.row(10)
def test_names_in_override_are_checked() -> None:
    with pytest.raises(ConfigError) as raised:
        ml(override=["sed", "modle.hidden", "csw", "tasks", "agent", "seed", "replay.sequence"])
    assert str(raised.value).splitlines() == [
        "override=sed: there is no such setting. Did you mean `seed`?",
        "override=modle.hidden: there is no such setting. Did you mean `model.hidden`?",
        "override=csw: there is no such setting. Did you mean `csv`?",
        "override=tasks: `tasks` cannot change when a run is resumed. Set another path or experiment for "
        "a new run.",
    ]


@pytest.mark.row(10)
def test_config_yaml_says_what_was_used_and_until_when() -> None:
    again = begin(dataset="Digits", lr=0.1, init="xavier")
    ml(**{**again, "lr": 0.2, "seed": 3, "override": "seed", "init": "orthogonal"})
    text = Path("run/config.yaml").read_text()
    assert "\nlr: 0.2\n" in text
    assert "\nseed: 3\n" in text
    assert "\ninit: xavier\n" in text  # It counts at the start alone.
    assert "\noverride: null\n" in text  # A word of one call.
    assert text.endswith("# Until step 8:\n#   lr: 0.1\n#   train_steps: 8\n#   seed: 0\n")
    # Finished: nothing is used any more.
    ml(**{**again, "lr": 0.7, "seed": 3})
    assert Path("run/config.yaml").read_text() == text
    longer = {"train_steps": 16, "seed": 3, "lr": 0.2}
    ml(**{**again, **longer})
    assert (
        Path("run/config.yaml")
        .read_text()
        .endswith("#   seed: 0\n# Until step 12:\n#   train_steps: 12\n")
    )


@pytest.mark.row(10)
def test_the_page_on_running_lists_what_may_not_change() -> None:
    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    table = page[page.index("## Interrupted?") :]
    rows = {
        line.split("|")[1].strip(): {name.strip("`, ") for name in line.split("|")[2].split("`, `")}
        for line in table.splitlines()
        if line.startswith("| ") and line.count("|") == 3 and "`" in line
    }
    marks = {
        "only if `override` names it": ("fixed",),
        "never": ("kept", "sequence"),
        "without effect": ("start",),
    }
    for what, places in marks.items():
        listed = {key for key, s in schema().items() if s.counts & {*places}}
        assert rows[what] == listed, what


# -------------------------------------------------------------------------------- row 48: rows


def _halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _without_a_row(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(lines[:3] + lines[4:])


DAMAGE: dict[str, tuple[Callable[[bytes], bytes] | None, str]] = {
    "deleted": (None, "train.csv is missing"),
    "halved": (_halve, "train.csv"),
    "a row": (_without_a_row, "train.csv holds 7 of the 8 rows"),
    "no UTF-8": (lambda data: data.replace(b"train,2,", b"tr\xffin,2,"), "line 3 is not UTF-8"),
    "zeros": (lambda data: data.replace(b"train,2,", b"train\0,2,"), "line 3 holds bytes of zero"),
    "letters": (lambda data: data.replace(b"train,2,", b"train,x,"), "not a number"),
    "order": (lambda data: data.replace(b"train,2,", b"train,7,"), "line 4 is out of place"),
}


@pytest.mark.row(48)
@pytest.mark.parametrize("name", DAMAGE)
def test_rows_that_are_lost_are_named(name: str) -> None:
    again = begin(dataset="Digits")
    damage, message = DAMAGE[name]
    file = Path("run/train.csv")
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    refused(rf"{message}.*override=\[csv\]", **again)
    lost = file.read_bytes() if file.exists() else None
    run = ml(**{**again, "override": "csv"})
    steps = [row["step"] for row in run.history if row["mode"] == "train"]
    assert steps == sorted(steps)
    assert steps[-4:] == [9, 10, 11, 12]
    lines = file.read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == steps
    if lost is not None:
        assert Path("run/train.csv.damaged").read_bytes() == lost
    assert ml(**{**again, "train_steps": 13}).history[-1]["step"] == 13  # And never again.


@pytest.mark.row(48)
@pytest.mark.parametrize("tail", [b"train,9,", b"\0" * 4096, b"train,9,\xff\xfe,,\n", b"\n\n"])
def test_what_follows_the_checkpoints_rows_is_mended(tail: bytes) -> None:
    again = begin(dataset="Digits")
    with open("run/train.csv", "ab") as file:
        file.write(tail)
    run = ml(**again)
    whole = ml(**{**again, "path": "whole", "resume": False})
    assert (run.path / "train.csv").read_bytes() == (whole.path / "train.csv").read_bytes()


@pytest.mark.row(48)
def test_a_run_without_csv_files_lost_none() -> None:
    again = begin(dataset="Digits", loggers=[])
    assert ml(**{**again, "loggers": ["csv"]}).history[-1]["step"] == 12


# ------------------------------------------------------------------------- rows 7, 8: checkpoints


@pytest.mark.row(7)
def test_checkpoints_that_are_all_bad_are_listed_and_the_run_is_moved_aside_if_forced() -> None:
    again = begin(dataset="Digits", train_steps=12)
    for manifest in Path("run/checkpoints").glob("*/manifest.json"):
        manifest.write_text("{}")
    before = files()
    with pytest.raises(
        CheckpointError, match=r"(?s)000003.*000002.*000001.*resume=force"
    ) as raised:
        ml(**again)
    assert files() == before
    assert raised.value.exit_code == 1  # Nobody's input is wrong.
    run = ml(**{**again, "resume": "force", "seed": 7})
    assert run.history[0]["step"] == 1
    assert {path.relative_to("run.1"): data for path, data in files("run.1").items()} == {
        path.relative_to("run"): data for path, data in before.items()
    }


@pytest.mark.row(15)
def test_checkpoints_after_999999_are_newer() -> None:
    again = begin(dataset="Digits", train_steps=12)
    kept = sorted(Path("run/checkpoints").iterdir())
    for number, path in zip((999997, 999998, 999999), kept, strict=True):
        path.rename(path.with_name(str(number)))
    ml(**{**again, "train_steps": 20})
    names = {path.name for path in Path("run/checkpoints").iterdir()}
    assert names == {"999999", "1000000", "1000001"}
    assert json.loads(Path("run/status.json").read_text())["step"] == 20
