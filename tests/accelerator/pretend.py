"""The pretend device: compiled, installed into a process of its own, and asked what runs did with it.

`Machine` is what tests hold: `run` calls a function in a process that has the device, and gives back its
result. torch can be given such a device once per process, and never lose it again; the tests' own process
stays without.
"""

from __future__ import annotations

import collections
import hashlib
import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAME = "antelope_pretend"

EVENTS: collections.Counter[tuple[str, str]] = collections.Counter()
"""How often something happened in a phase: `("learn", "wait")`."""
PLACES: dict[tuple[str, str], str] = {}
"""Where it happened last: the innermost lines of this project."""
_phases: list[str] = []


class NotHere(Exception):
    """This machine cannot make a pretend device."""


def compiled(folder: Path) -> Path:
    """The device as a Python module, compiled into `folder` unless it is there already.

    Raises:
        NotHere: If this machine lacks what it takes to compile it.
        RuntimeError: If it does not compile.
    """
    source = HERE / "pretend.cpp"
    known = hashlib.sha256(source.read_bytes() + f"{torch.__version__} {sys.version}".encode())
    built = folder / known.hexdigest()[:16] / f"{NAME}.so"
    if built.exists():
        return built
    headers = Path(sysconfig.get_paths()["include"])
    if sys.platform != "linux":
        raise NotHere("the pretend device is compiled on Linux only")
    if shutil.which("g++") is None:
        raise NotHere("there is no g++ to compile the pretend device with")
    if not (headers / "Python.h").exists():
        raise NotHere(
            f"the pretend device is compiled with Python's headers, and {headers} has none"
        )
    built.parent.mkdir(parents=True, exist_ok=True)
    torch_dir = Path(torch.__path__[0])
    includes = [torch_dir / "include", torch_dir / "include" / "torch" / "csrc" / "api" / "include"]
    partial = built.with_suffix(f".{os.getpid()}")
    abi = int(torch.compiled_with_cxx11_abi())
    command = [
        *("g++", "-O1", "-std=c++20", "-fPIC", "-shared", "-w", f"-D_GLIBCXX_USE_CXX11_ABI={abi}"),
        *(f"-I{folder}" for folder in (*includes, headers)),
        *(str(source), "-o", str(partial), f"-L{torch_dir / 'lib'}"),
        *("-ltorch_cpu", "-lc10", "-ltorch", "-ltorch_python", f"-Wl,-rpath,{torch_dir / 'lib'}"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"the pretend device does not compile: {result.stderr[-2000:]}")
    os.replace(partial, built)
    return built


class _Module:
    """`torch.pretend`, as `torch.cuda` is for CUDA."""

    free = 10**12  # Bytes, as `mem_get_info` tells.

    def __init__(self, device: Any):
        self._device = device

    def _index(self, device: Any) -> int:
        index = device if isinstance(device, int) else torch.device(device or "pretend").index
        return self._device.current_device() if index is None else index

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def _lazy_init(self) -> None:
        pass

    def device_count(self) -> int:
        return int(self._device.device_count())

    def current_device(self) -> int:
        return int(self._device.current_device())

    def set_device(self, device: Any) -> None:
        self._device.set_device(self._index(device))

    def synchronize(self, device: Any = None) -> None:
        pass

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return self.free, 2 * self.free

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]

    def manual_seed_all(self, seed: int) -> None:
        for index in range(self.device_count()):
            self._device.seed(index, seed % 2**64)

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.frombuffer(
            bytearray(self._device.state(self._index(device))), dtype=torch.uint8
        )

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        self._device.set_state(self._index(device), state.numpy().tobytes())


def install(built: Path) -> Any:
    """Give this process the device; returns the compiled module."""
    sys.path.insert(0, str(built.parent))
    torch.utils.rename_privateuse1_backend("pretend")
    device = importlib.import_module(NAME)
    device.register()
    torch._register_device_module("pretend", _Module(device))  # type: ignore[no-untyped-call]
    torch.utils.generate_methods_for_privateuse1_backend()
    device.listen(_happened)
    # As on CUDA, parameters stay the same objects when a module moves. For other kinds of device torch
    # exchanges what is inside them, which lazy ones do not allow.
    torch.__future__.set_swap_module_params_on_conversion(True)
    _move_lazy_parameters()
    # torch says of every output that a kernel resizes that it should not; on CUDA no such kernel is run.
    warnings.filterwarnings("ignore", message="An output with one or more elements was resized")
    return device


def _move_lazy_parameters() -> None:
    from torch import nn
    from torch.nn.parameter import UninitializedParameter, is_lazy

    apply = nn.Module._apply

    def _apply(self: nn.Module, fn: Callable[..., Any], recurse: bool = True) -> nn.Module:
        lazy = {name: p for name, p in self._parameters.items() if p is not None and is_lazy(p)}
        for name in lazy:
            self._parameters[name] = None
        try:
            return apply(self, fn, recurse)
        finally:
            for name, p in lazy.items():
                to = fn(torch.empty(0))
                self._parameters[name] = UninitializedParameter(
                    p.requires_grad, device=to.device, dtype=to.dtype
                )

    nn.Module._apply = _apply  # type: ignore[method-assign]


def _happened(event: str, operation: str) -> None:
    """Called by the device: something crosses, or is waited for."""
    if not _phases:
        return
    key = _phases[-1], event
    EVENTS[key] += 1
    frames = traceback.extract_stack()[:-1]
    own = [
        f for f in frames if f.filename.startswith(str(ROOT)) and "site-packages" not in f.filename
    ]
    lines = [f"{Path(f.filename).relative_to(ROOT)}:{f.lineno} {f.name}" for f in own[-3:]]
    PLACES[key] = f"{operation} in {' < '.join(reversed(lines))}"


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Inside, what happens is counted under this name."""
    _phases.append(name)
    try:
        yield
    finally:
        _phases.pop()


class Machine:
    """A process that has a device.

    Args:
        name: Of the device.
        built: The pretend one, compiled; None: the machine has it anyway.
    """

    def __init__(self, name: str, built: Path | None):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, built, sys.path), daemon=True)
        self._process.start()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of a module there; what it raises fails the test with its traceback."""
        self._pipe.send((function.__module__, function.__qualname__, args, kwargs))
        failed, result = self._pipe.recv()
        if failed:
            raise AssertionError(f"On {self.name}:\n{result}")
        return result

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Any, built: Path | None, path: list[str]) -> None:
    sys.path[:] = path
    torch.set_num_threads(1)
    if built is not None:
        install(built)
    while True:
        module, name, args, kwargs = pipe.recv()
        EVENTS.clear()
        PLACES.clear()
        try:
            function = getattr(importlib.import_module(module), name)
            result = False, function(*args, **kwargs)
        except BaseException:
            result = True, traceback.format_exc()
        pipe.send(result)
