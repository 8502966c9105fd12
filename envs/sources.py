"""Finds data sets, and opens them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..replay import ConfigError, DataError, DownloadError
from .arrow import table_suffix
from .downloads import download, impatient
from .media import media_of_file, refusal


def split_arguments(target: Any, *, train: bool, data_dir: Path) -> dict[str, Any] | None:
    """The arguments that select a data set's training or test part; None: it has no test part.

    `train=` or `split=`, `root=` and `download=`, as far as the constructor has them.
    """
    parameters = _parameters(target)
    arguments: dict[str, Any] = {"root": str(data_dir), "download": True}
    arguments = {key: value for key, value in arguments.items() if key in parameters}
    if "train" in parameters:
        return arguments | {"train": train}
    names = _SPLITS.get(getattr(target, "__name__", ""), ("train", "test"))
    for key in ("split", "image_set"):
        if key in parameters:
            return arguments | {key: names[0] if train else names[1]}
    return arguments if train else None


def own_test_arguments(target: Any, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments of a data set's own test part, made from those given for training.

    The user's `train=True` concerns the training data only. None if the test part itself is trained on,
    so that there is none to hold out.
    """
    train, test = (split_arguments(target, train=part, data_dir=Path()) for part in (True, False))
    if train is None or test is None:
        return arguments
    choosing = {key: value for key, value in test.items() if train[key] != value}
    if any(key in arguments and arguments[key] == choosing[key] for key in choosing):
        return None
    return {key: value for key, value in arguments.items() if key not in choosing}


# torchvision's data sets whose parts have names other than train and test.
_SPLITS = {
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "FGVCAircraft": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}


def _parameters(target: Any) -> set[str]:
    """A constructor's parameters, and those of its bases where it passes **kwargs on."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return set()
    names = set(parameters)
    if inspect.isclass(target) and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        # torchvision's classes pass `root` and `download` on to their bases.
        for base in target.__mro__[1:]:
            names |= set(inspect.signature(vars(base).get("__init__", object)).parameters)
    return names - {"self", "args", "kwargs"}


def folder_of(name: Any) -> Path | None:
    """The folder that a name is the path of, with `~` expanded; None: there is no such folder."""
    if not isinstance(name, (str, Path)) or not str(name):
        return None
    path = Path(name).expanduser() if str(name).startswith("~") else Path(name)
    return path if path.is_dir() else None


@dataclass(frozen=True)
class OnHub:
    """A data set on the Hugging Face hub: `hf:NAME`, `hf:OWNER/NAME` or `hf:OWNER/NAME/CONFIG`."""

    name: str
    config: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.name}" + (f"/{self.config}" if self.config else "")


def on_hub(name: Any) -> OnHub | None:
    """The data set that `hf:...` names; None for any other name.

    >>> on_hub("hf:nyu-mll/glue/sst2")
    OnHub(name='nyu-mll/glue', config='sst2')
    """
    if not isinstance(name, str) or not name.startswith("hf:") or len(name) == len("hf:"):
        return None
    owner, *rest = name.removeprefix("hf:").split("/", 2)
    return OnHub("/".join([owner, *rest[:1]]), rest[1] if len(rest) > 1 else None)


_OTHER_FILES = {
    (
        ".xlsx",
        ".xls",
        ".ods",
    ): "a spreadsheet: save it as .csv, or give the frame of pandas.read_excel",
    (
        ".json",
    ): "JSON: save a table as .jsonl, one row per line, or give the frame of pandas.read_json",
    (".db", ".sqlite", ".sqlite3"): "a database: give the frame of pandas.read_sql",
    (".h5", ".hdf5"): "HDF5: give arrays of it, as a pair (inputs, targets)",
    (
        ".npy",
        ".npz",
    ): "NumPy's: give its arrays as a pair (inputs, targets), with storage=mmap and numpy.load(file, "
    "mmap_mode='r') if they are larger than memory",
    (".pkl", ".pickle", ".pt", ".pth"): "pickled, and loading it may run code: give what it holds",
    (".dta", ".sav", ".sas7bdat", ".orc", ".avro"): "not read: save it as .parquet or .csv",
}


def check_file(name: Any) -> None:
    """Raise ConfigError for a file that is not a data set, such as an audio file, with what to do instead."""
    # A name such as `mine.json` may be a class of `mine.py`: only an actual file is refused.
    if not isinstance(name, (str, Path)) or not Path(name).expanduser().is_file():
        return
    if (kind := media_of_file(name)) is not None:
        raise ConfigError(refusal(str(name), kind))
    ending = Path(name).suffix.lower()
    for endings, what in _OTHER_FILES.items():
        if ending in endings:
            raise ConfigError(f"{name} is {what}.")


def table_file_of(name: Any) -> Path | None:
    """The file of a table that a name is the path of, with `~` expanded; None: any other name.

    The file need not exist: what the name ends in says that it is one.
    """
    if not isinstance(name, (str, Path)) or table_suffix(name) is None or ":" in str(name)[2:]:
        return None
    return Path(name).expanduser() if str(name).startswith("~") else Path(name)


def default_data_dir() -> Path:
    """`$ANTELOPE_DATA`, else a cache directory of the user's, or one below the working directory."""
    if directory := os.environ.get("ANTELOPE_DATA"):
        return Path(directory)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "antelope"
    try:
        return Path.home() / ".cache" / "antelope"
    except RuntimeError:  # In a container, the user may have no name and no home.
        return Path.cwd() / ".cache" / "antelope"


def open_dataset(
    build: Callable[..., Any], target: Any, arguments: dict[str, Any], *, name: str, data_dir: Path
) -> Any:
    """Build a data set; a failing download becomes one clear error.

    Args:
        build: Makes it from these arguments, some of them changed.
        target: What makes it.
        arguments: What selects the part, and what the user has set; see `split_arguments`.
        data_dir: Where it is looked for.

    Raises:
        DownloadError: If what a server sent is of no use.
        DataError: What was tried, where the files may be put, and what needs no download.
    """
    try:
        module = str(getattr(target, "__module__", ""))
        if module.startswith("torchvision.datasets") and arguments.get("download") is True:
            folder = Path(arguments["root"]).expanduser()
            return download(lambda **changes: build(**{**arguments, **changes}), folder)
        with impatient():
            return build(**arguments)
    except DownloadError as error:
        raise DownloadError(
            f"{name} could not be downloaded: {error}. Nothing of it was kept. Try again later, or put its "
            f"files into {data_dir.resolve()} (or set data_dir=... or ANTELOPE_DATA)."
        ) from error
    except (ConfigError, OSError) as error:
        # The launcher has wrapped what the constructor raised.
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, (OSError, RuntimeError)):
            raise
        raise DataError(
            f"{name} could not be read from {data_dir.resolve()} nor downloaded "
            f"({type(cause).__name__}: {cause}). Put its files there (or set data_dir=... or "
            "ANTELOPE_DATA), check the network, or use dataset=Digits, which needs no download."
        ) from cause
