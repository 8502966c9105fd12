"""Exports a trained model: `run.export("onnx")`, `ml export RUN format=onnx`."""

from __future__ import annotations

from pathlib import Path

from ...replay import ConfigError
from ...replay.files import replacing_by_name
from ...replay.suggestions import did_you_mean
from ..inference.trained import Trained
from .formats import FORMATS


def export(trained: Trained, format: str, path: str | Path | None) -> Path:
    """Write a model in a format, checked, under another name first.

    Args:
        trained: The trained model.
        format: A key of `FORMATS`.
        path: The file, or an existing folder; None: `model` in the run directory.

    Returns:
        The file, absolute.

    Raises:
        ConfigError: If the format is unknown, the model cannot be exported, or the file cannot be written.
            Nothing is left behind then, and an earlier file stays as it was.
    """
    file = _target(format, path, trained.path)
    if format != "safetensors":
        trained.check(
            "Cannot export {}: {}. Its weights alone can be exported: format=safetensors."
        )
    try:
        with replacing_by_name(file) as partial:
            FORMATS[format].write(trained, partial)
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror or error}.") from error
    return file


def _target(format: str, path: str | Path | None, run: Path) -> Path:
    """The absolute file to write.

    Raises:
        ConfigError: If the format is unknown, contradicts the file's name, or the folder does not exist.
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        hint = did_you_mean(str(format), FORMATS)
        if named := _format_of(Path(str(format))):
            hint = f" {format} is a file: run.export({named!r}, {format!r}); in a console, out={format}."
        raise ConfigError(f"format={format}: expected one of {known}.{hint}")
    suffix = FORMATS[format].suffix
    file = (run if path is None else Path(path).expanduser()).absolute()
    if file.is_dir():
        file = file / f"model{suffix}"
    elif (named := _format_of(file)) not in (None, format):
        raise ConfigError(
            f"{file.name} is a name for format={named}, not for format={format}, whose files end in {suffix}."
        )
    if not file.parent.is_dir():
        raise ConfigError(f"Cannot write {file}: the folder {file.parent} does not exist.")
    return file


def _format_of(file: Path) -> str | None:
    """The format whose files end as this one does."""
    return next((name for name, f in FORMATS.items() if f.suffix == file.suffix), None)
