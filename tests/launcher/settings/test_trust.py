"""What text in Python's keywords may name: the working directory's own code, and not what that imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antelope.launcher.settings.imports import import_file
from antelope.launcher.settings.names import resolve
from antelope.launcher.settings.trust import is_here, text_may_name

FILE = """
import abc, collections, ctypes, dataclasses, enum, functools, os, runpy, subprocess, torch
from dataclasses import dataclass
from subprocess import Popen
from torch.nn import Linear

@dataclass
class Data:
    width: int = 1

class Bare(torch.nn.Module):
    pass

class Kind(enum.Enum):
    one = 1

Pair = collections.namedtuple("Pair", "first second")

class Decorated:
    @functools.wraps(torch.nn.Module.forward)
    def forward(self):
        pass
    @functools.cache
    def other(self):
        pass

class Sub(Linear):
    class Inner:
        pass

@torch.no_grad()
def function():
    pass

@functools.lru_cache
def cached():
    pass

def make():
    class Made:
        pass
    return Made

Made = make()
LAYER = Linear(1, 1)
PARTIAL = functools.partial(Linear, 1)
text = "x"

@functools.wraps(subprocess.getoutput)
def wrapped(cmd):
    return subprocess.getoutput(cmd)
"""
OWN = (
    "Data",
    "Bare",
    "Kind",
    "Pair",
    "Decorated",
    "Sub",
    "Sub.Inner",
    "function",
    "cached",
    "Made",
)
OWN = (*OWN, "LAYER", "PARTIAL")
OF_OTHERS = (
    # Frozen into Python: their code knows no file.
    *("os.popen", "os.execvp", "runpy.run_path", "abc.ABC"),
    *("os", "os.system", "os.environ", "Linear", "Popen", "subprocess.getoutput", "torch.hub.load"),
    *("dataclasses.dataclass", "functools.reduce", "torch.ops.load_library", "text.join"),
    *("ctypes.cdll", "ctypes.cdll.LoadLibrary", "ctypes.pythonapi.Py_Exit", "torch.ops.aten.add"),
    # It says that it is subprocess's, and runs what that runs.
    "wrapped",
)


@pytest.fixture(params=["mine.py", "sub/mine.py", "sub/wave.py"])
def file(request: Any, workdir: Path) -> Iterator[str]:
    """A file of the user's; one is called like a module of Python's that is loaded."""
    import wave

    assert sys.modules["wave"] is wave
    before = dict(sys.modules)
    name: str = request.param
    Path("sub").mkdir()
    Path(name).write_text(FILE)
    yield name
    for module in sys.modules.keys() - before.keys():
        del sys.modules[module]


def test_what_a_file_here_defines_is_here_and_what_it_imports_is_not(file: str) -> None:
    names = (*OWN, *OF_OTHERS)
    found = {name for name in names if is_here(resolve(f"{file}:{name}", "model"))}
    # Nothing leads to the class of a function; where two modules have its name, it may be either's.
    assert found == set(OWN) - ({"Made"} if file.endswith("wave.py") else set())


def test_what_takes_a_librarys_name_is_the_librarys(workdir: Path) -> None:
    import wave

    Path("wave.py").write_text("from wave import Wave_read\nclass Wave_write: pass\n")
    try:
        assert import_file(Path("wave.py")) is not wave
        assert not is_here(resolve("wave.py:Wave_read", "model"))
        assert is_here(resolve("wave.py:Wave_write", "model"))
        assert not is_here(wave.Wave_write)
    finally:
        del sys.modules[str(workdir / "wave.py")]


def test_the_running_script_is_here_wherever_it_lies(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        pass

    assert not is_here(Model)
    monkeypatch.setattr(Model, "__module__", "__main__")
    assert is_here(Model)


def test_what_a_virtual_environment_in_the_folder_holds_is_not_here(workdir: Path) -> None:
    folder = Path("venv/lib/site-packages")
    folder.mkdir(parents=True)
    (folder / "installed.py").write_text("class Model: pass\n")
    try:
        assert not is_here(resolve("venv/lib/site-packages/installed.py:Model", "model"))
    finally:
        sys.modules.pop("installed", None)


@pytest.mark.parametrize("kind", ["model", "env"])
def test_text_that_is_no_name_is_not_looked_up(kind: str, workdir: Path) -> None:
    Path("mine.py").write_text("import ctypes\n")  # Whose cdll opens what it is asked for.
    assert not text_may_name("mine.py:ctypes.cdll./tmp/library", kind)
    assert text_may_name("mine.py:Model.Inner", kind)
    assert text_may_name("mine.py:Namespace/Walk-v0", "env")
