"""The wheel holds all of `antelope`, and nothing that could overwrite somebody else's."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import antelope

ROOT = Path(__file__).resolve().parents[1]
NOT_INSTALLED = {"tests", "examples", "benchmarks", "docs", "runs", "build", "dist"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def installed_as(path: Path) -> str:
    """Where a file of the checkout belongs in the wheel."""
    name = path.relative_to(ROOT).as_posix()
    return name if name.startswith("antelope/") else f"antelope/{name}"


def code() -> list[Path]:
    """Every file of code below the checkout's folders."""
    tops = (p for p in ROOT.iterdir() if p.is_dir() and p.name.isidentifier())
    return [f for top in tops if top.name not in NOT_INSTALLED for f in top.rglob("*.py")]


def test_every_folder_with_code_is_listed() -> None:
    folders = {Path(installed_as(file)).parent.as_posix().replace("/", ".") for file in code()}
    assert sorted(folders) == PROJECT["tool"]["setuptools"]["packages"]


def test_every_package_but_the_face_is_mapped_to_its_folder() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["package-dir"] == {
        name: name.removeprefix("antelope.").replace(".", "/")
        for name in setuptools["packages"]
        if name != "antelope"
    }


# Distributions whose name is not that of what is imported.
DISTRIBUTIONS = {
    **{"PIL": "pillow", "yaml": "pyyaml", "hydra": "hydra-core", "ale_py": "ale-py"},
    "sklearn": "scikit-learn",
}


def imported(file: Path, *, at_once: bool) -> set[str]:
    """The distributions that a file imports: when it is imported itself, or ever."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if at_once else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module is not None:
            names.add(node.module.split(".")[0])
    names -= {"antelope", *sys.stdlib_module_names}
    return {DISTRIBUTIONS.get(name, name) for name in names}


def declared(lines: list[str]) -> set[str]:
    """The names of distributions, without their versions and extras."""
    return {re.split(r"[^\w.-]", line)[0].lower() for line in lines}


def test_every_import_is_declared() -> None:
    required = declared(PROJECT["project"]["dependencies"])
    extras = PROJECT["project"]["optional-dependencies"]
    optional = declared(
        [line for name, lines in extras.items() if name != "test" for line in lines]
    )
    for file in code():
        assert imported(file, at_once=True) <= required, file
        assert imported(file, at_once=False) <= required | optional, file


def test_every_requirement_is_imported() -> None:
    needed = declared(PROJECT["project"]["dependencies"])
    assert needed <= set().union(*(imported(file, at_once=False) for file in code()))


def test_all_is_every_extra_but_the_one_of_tests() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (line,) = extras["all"]
    named = line.removeprefix("antelope-ml[").removesuffix("]").split(",")
    assert named == [name for name in extras if name not in ("all", "test", "dev")]


def test_the_version_is_said_once() -> None:
    assert PROJECT["project"]["version"] == antelope.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy: building in the checkout would leave build/ and *.egg-info there."""
    for needed in ("setuptools", "pip"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed} to build a wheel")
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to know which files belong to it")
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file() and name.split("/")[0] not in NOT_INSTALLED:
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "copy" / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q")
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), "."]
    built = subprocess.run(command, cwd=folder / "copy", capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_all_of_antelope_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    assert {name.split("/")[0] for name in names} == {
        "antelope",
        f"antelope_ml-{antelope.__version__}.dist-info",
    }
    data = [*(ROOT / "hyperparams").rglob("*.yaml"), *(ROOT / "envs" / "data").glob("*.npz")]
    assert len(data) > 3
    expected = {installed_as(file) for file in [*code(), *data]}
    assert expected - names == set()
    assert "antelope/py.typed" in names
    assert not {name for name in names if "__pycache__" in name or "/tests/" in name}


def test_the_wheel_has_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("entry_points.txt"))
        assert "ml = antelope.launcher.ml:main" in file.read(name).decode()


def test_an_installed_copy_finds_its_settings_and_presets(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    check = (
        "import antelope\n"
        f"assert antelope.__file__.startswith({str(tmp_path)!r})\n"
        "from antelope.launcher.settings.compose import compose\n"
        "from antelope.launcher.settings.presets import presets\n"
        "assert presets()\n"
        "assert compose(['task=classify/mnist'], {}).dataset == {'_target_': 'MNIST'}"
    )
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=path, check=True)
