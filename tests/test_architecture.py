"""Who may import whom: replay <- envs, agents <- launcher <- antelope."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import structure

ROOT = Path(__file__).resolve().parents[1]
OURS = {"agents", "antelope", "envs", "hyperparams", "launcher", "replay"}
ALLOWED = {
    "replay": {"replay"},
    "envs": {"envs", "replay"},
    "agents": {"agents", "replay"},
    # `ml --version` asks the face itself, when it is called.
    "launcher": {"launcher", "envs", "agents", "replay", "antelope"},
}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """`(dotted path from the root, whether it was written relative)` of every import."""
    package = file.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*up, *filter(None, [node.module])))
            # `from .. import replay` names a folder only in what it takes.
            names = [base] if base else [alias.name for alias in node.names]
            yield from ((name, node.level > 0) for name in names)


def folders_imported(file: Path) -> set[str]:
    """Which of our folders a file imports, `antelope.replay` being `replay`."""
    return {name.removeprefix("antelope.").split(".")[0] for name, _ in imports(file)} & OURS


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_those_below_it(folder: str) -> None:
    assert files(folder)
    for file in files(folder):
        assert folders_imported(file) <= ALLOWED[folder], file


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_between_folders_are_relative(folder: str) -> None:
    for file in files(folder):
        absolute = {name.split(".")[0] for name, relative in imports(file) if not relative}
        assert not absolute & (OURS - {"antelope"}), file


def test_only_the_configuration_talks_to_hydra() -> None:
    talk = {f for f in files("launcher") if any(n.split(".")[0] == "hydra" for n, _ in imports(f))}
    assert talk == {ROOT / "launcher" / "settings" / name for name in ("words.py",)}


# Inside the launcher: the rooms that each room may import. Files beside them are above all but the wings.
ROOMS = {
    "metrics": set(),
    "settings": {"metrics"},
    "assembly": {"settings"},
    "pictures": {"metrics", "settings"},
    "record": {"settings", "assembly", "metrics", "pictures"},
    "learn": {"settings", "assembly", "record", "metrics"},
    "by_hand": {"settings", "assembly", "learn", "record", "metrics"},
    "inference": {"settings", "assembly", "learn", "record", "metrics"},
    "estimators": {"settings", "assembly", "learn", "record", "metrics", "inference"},
    "export": {"settings", "assembly", "learn", "record", "metrics", "inference"},
    "mammoth": {"settings", "assembly", "learn", "record", "metrics", "inference"},
    "sweep": {"inference", "settings", "learn", "record", "metrics", "pictures"},
}
WINGS = ("by_hand", "estimators", "export", "inference", "mammoth", "sweep")
GRAPH = structure.imports(structure.modules(ROOT))
COUNTS = structure.measure(ROOT)
# What is called with settings, and plans them.
DOORS = {
    *(
        "launcher.train",
        "launcher.sweep.places",
        "launcher.sweep.search",
        "launcher.open_run",
        "launcher.task_by_task",
    ),
    *("launcher.plainly", "launcher.inference.loading", "launcher.inference.saved_settings"),
    "launcher.inference.resuming",
    *("launcher.batch_size", "launcher.distributed"),
}


def room_of(module: str) -> str:
    """`learn` of `launcher.learn.learner`, `session.py` of `launcher.session`."""
    name = module.split(".")[1]
    return name if name in ROOMS else f"{name}.py"


def rooms_imported(room: str) -> dict[str, str]:
    """The other rooms and files of the launcher that a room imports, each with one import of it."""
    return {
        room_of(other): f"{module} imports {other}"
        for module, others in GRAPH.items()
        if module.startswith(f"launcher.{room}.")
        for other in others
        if other.startswith("launcher.") and room_of(other) != room
    }


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_the_launcher_imports_only_those_below_it(room: str) -> None:
    for name, example in rooms_imported(room).items():
        above = name.endswith(".py") and room in WINGS
        assert above or name in ROOMS[room], example


def test_no_files_import_each_other() -> None:
    assert COUNTS.circles == []


def test_the_code_stays_within_its_limits() -> None:
    assert COUNTS.on_data == 0  # Asked of the world instead.
    # Dicts and attributes of what users and libraries bring; trees of spaces have replay/tree.py.
    assert COUNTS.asked <= 55
    assert COUNTS.fetched <= 55
    assert COUNTS.loose < 0.07
    assert COUNTS.lengths[0][0] < 60, COUNTS.lengths[0]


def test_settings_are_read_where_the_plan_is_made_alone() -> None:
    readers = {name for name, others in GRAPH.items() if "launcher.settings.settings" in others}
    doors = {name for name in readers if not name.startswith("launcher.settings.")}
    assert doors <= DOORS


def test_pictures_read_settings_of_runs_and_nothing_else_of_theirs() -> None:
    found = {other for name, others in GRAPH.items() if ".pictures." in name for other in others}
    allowed = {"launcher.settings.plain_yaml", "launcher.settings.schema"}
    assert {other for other in found if ".settings." in other} <= allowed


def test_only_its_own_command_knows_mammoth() -> None:
    found = {
        name
        for name, others in GRAPH.items()
        if not name.startswith("launcher.mammoth.")
        and any(other.startswith("launcher.mammoth") for other in others)
    }
    assert found == {"launcher.commands"}


def test_the_walker_sees_every_way_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "envs" / "deep" / "new.py"
    file.parent.mkdir(parents=True)
    for line in (
        "from ...launcher import config",
        "from ...launcher.config import compose",
        "from ... import launcher",
        "import antelope.launcher.settings.compose",
        "def f():\n    from antelope.launcher import ml",
    ):
        file.write_text(line)
        assert folders_imported(file) == {"launcher"}, line
    file.write_text("from ..tasks import DataWorld\nfrom . import other\nimport torch")
    assert folders_imported(file) == {"envs"}


def test_settings_are_read_without_torch() -> None:
    code = (
        "import sys, antelope\n"
        "from antelope.launcher.settings.compose import compose\n"
        "compose(['lr=1'], {'model': 'Net'})\n"
        "from antelope import ConfigError, ml\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_run_imports_no_library_that_it_does_not_use(tmp_path: Path) -> None:
    code = (
        "import sys, numpy\n"
        "from antelope import ml\n"
        "ml(dataset=(numpy.eye(8), numpy.arange(8) % 2), train_steps=1, plot=False, progress=False)\n"
        "unused = {'torchvision', 'PIL', 'matplotlib', 'gymnasium', 'rich', 'scipy'}\n"
        "unused |= {'sklearn', 'onnx', 'onnxruntime', 'torchmetrics', 'pandas', 'pyarrow', 'datasets'}\n"
        "unused |= {'hydra', 'omegaconf', 'antlr4', 'cloudpickle', 'torch.utils.tensorboard'}\n"
        "unused |= {name for name in sys.modules if name.startswith('antelope.launcher.mammoth')}\n"
        "assert not unused & set(sys.modules), unused & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_every_name_is_offered_before_it_is_imported() -> None:
    code = (
        "import sys, antelope\n"
        "assert set(antelope.__all__) <= set(dir(antelope))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
