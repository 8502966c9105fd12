"""The device of a run, its threads and its arithmetic."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ...envs.world import World, WorldSpec
from ...replay import ConfigError, Space
from ...replay.ranks import ranks
from ..settings.foreign import answer
from ..settings.plan import Plan

_VARIABLE = "ANTELOPE_DEVICE"  # Names the default device.
_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # What deterministic cuBLAS asks for.


def device_wanted(plan: Plan) -> str | None:
    """The name of the device that the plan, or else the variable ANTELOPE_DEVICE, asks for; None: neither."""
    return ranks().gpu or plan.device or os.environ.get(_VARIABLE) or None


def build_device(name: str | None) -> torch.device:
    """The device by this name; by default a CUDA GPU that works, else the CPU.

    Args:
        name: As torch writes it, such as `cuda:1`; None: choose one.

    Raises:
        ConfigError: If the named device does not exist here, or does not work.
    """
    if name is None and not torch.cuda.is_available():
        return torch.device("cpu")
    if (reason := _failure(name or "cuda")) is None:
        return torch.empty(0, device=name or "cuda").device  # `cuda:0` of `cuda`.
    if name is not None:
        here = " or ".join(f"device={present}" for present in _present())
        said = _VARIABLE if name == os.environ.get(_VARIABLE) else "device"
        foreign = f" {found}" if (found := answer(f"device={name}")) else ""
        raise ConfigError(f"{said}={name} cannot be used here ({reason}). Try {here}.{foreign}")
    warnings.warn(
        f"There is a GPU, but it cannot be used ({reason}). This run uses the CPU. Set device=cpu to skip "
        "the attempt.",
        stacklevel=2,
    )
    return torch.device("cpu")


def build_threads(plan: Plan, world: World, device: torch.device) -> int | None:
    """The number of threads for torch; None: torch's default."""
    if plan.threads is not None or device.type != "cpu":
        return plan.threads
    if (place := ranks()).several and "OMP_NUM_THREADS" not in os.environ:
        return world.wanted_threads() or max(1, torch.get_num_threads() // place.world)
    return world.wanted_threads()


def _failure(name: str) -> str | None:
    """Why a device does not work, in one line; None if it does.

    A matrix product is computed, since a driver may fail only at the first kernel.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        return "there is no device of that name"
    try:
        # torch reads this variable once per process, at the first matrix product on a GPU. Without it,
        # a later run with deterministic=true would be refused.
        with _workspace():
            x = torch.ones(8, 8, device=device)
            total = float((x @ x).sum())
    # torch asserts that it was built with CUDA, and imports the modules of some devices late.
    except (RuntimeError, AssertionError, ImportError) as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    return None if total == 512 else f"8x8 ones multiplied with themselves sum to {total}, not 512"


def _present() -> list[str]:
    """The devices of this machine, by the names that `device=` accepts."""
    names = ["cpu"]
    kind = _accelerator()
    if kind is not None:
        count = torch.get_device_module(kind).device_count()
        names += [kind] if count < 2 else [f"{kind}:{i}" for i in range(count)]
    return names


def _accelerator() -> str | None:
    """The kind of accelerator that this machine has."""
    if not torch.accelerator.is_available():
        return None
    found = torch.accelerator.current_accelerator()
    return None if found is None else found.type


def describe(plan: Plan, device: torch.device, channels_last: bool) -> str:
    """The device and its arithmetic, for the header: `cuda:0, precision bf16, channels last`."""
    words = str(device)
    if (place := ranks()).several:
        words = f"{place.world} x {device.type}"
    other = _accelerator()
    if device_wanted(plan) is None and device.type == "cpu" and other not in (None, "cuda"):
        words += f" (device={other} is available too, but is used only on request)"
    if str(plan.precision) != "32":
        words += f", precision {plan.precision}"
    return words + ", channels last" * channels_last


# ------------------------------------------------------------------------------------- arithmetic


@contextmanager
def arithmetic(plan: Plan, device: torch.device) -> Iterator[None]:
    """Run the block with the plan's precision and determinism, and restore torch's settings afterwards.

    Raises:
        ConfigError: If the device does not support them.
    """
    precision, deterministic = str(plan.precision), plan.deterministic
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"precision=tf32 needs an NVIDIA GPU, and this run uses {device}. Leave it out, or set "
            "precision=bf16."
        )
    with ExitStack() as stack:
        if deterministic:
            stack.enter_context(_deterministic(device))
        if device.type == "cuda":
            # The fastest convolutions may differ from run to run, and so may the last bits.
            benchmark = plan.cudnn_benchmark
            wanted = not deterministic if benchmark is None else benchmark
            stack.enter_context(_set(torch.backends.cudnn, "benchmark", wanted))
        if precision == "tf32":
            stack.enter_context(_tf32())
        yield


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Run the block with deterministic algorithms only.

    Raises:
        ConfigError: If the process has used the device in a way that rules this out.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with _workspace():
        torch.use_deterministic_algorithms(True)
        try:
            if (reason := _failure(str(device))) is not None:
                name, value = _WORKSPACE
                raise ConfigError(
                    f"deterministic=true: {device} was used before this run, too early to be made "
                    f"deterministic now ({reason}). Set {name}={value} before Python starts."
                )
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def _workspace() -> Iterator[None]:
    """Run the block with the variable that makes cuBLAS deterministic, unless the user has set it."""
    name, value = _WORKSPACE
    given = os.environ.get(name)
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(name, None)


@contextmanager
def _tf32() -> Iterator[None]:
    """Run the block with TensorFloat-32 in matrix products, convolutions and recurrent layers."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with ExitStack() as stack:
        if hasattr(matmul, "fp32_precision"):  # From torch 2.9 on.
            for part in ("conv", "rnn"):
                stack.enter_context(_set(getattr(cudnn, part), "fp32_precision", "tf32"))
            # Only to restore it: `set_float32_matmul_precision` below changes it.
            stack.enter_context(_set(matmul, "fp32_precision", matmul.fp32_precision))
        else:
            stack.enter_context(_set(cudnn, "allow_tf32", True))
        try:
            before = torch.get_float32_matmul_precision()
        except RuntimeError:  # The user has set `fp32_precision`, which is restored above.
            before = None
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            if before is not None:
                torch.set_float32_matmul_precision(before)


@contextmanager
def _set(owner: object, name: str, value: object) -> Iterator[None]:
    """Run the block with an attribute at this value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def wants_channels_last(plan: Plan, world: WorldSpec, device: torch.device) -> bool:
    """Whether to lay out images channels last, which is faster for half-precision convolutions on a GPU."""
    if plan.channels_last is not None:
        return bool(plan.channels_last)
    half = str(plan.precision) in ("bf16", "16")
    return half and device.type == "cuda" and _is_image(world.spec.obs)


def _is_image(space: Space | dict[str, Any]) -> bool:
    return isinstance(space, Space) and len(space.shape) == 3
