"""`ml predict RUN INPUTS out=predictions.csv`: predictions for new inputs, written to a file."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ...replay.errors import ConfigError
from ..settings.import_path import import_nothing_from
from .verb_words import read_words

USAGE = "ml predict RUN INPUTS [out=predictions.csv] [task=0] [model=...] [trust=true]"
_ENDINGS = (".csv", ".parquet", ".npy")


def predict_command(words: list[str]) -> int:
    """Write the predictions of a run's model for inputs; the exit code.

    Raises:
        ConfigError, DataError: For an invalid word, a folder that is not a run, a model that must be named,
            or inputs that are not what the run was trained on.
    """
    said = read_words(words, "ml predict", USAGE, own=("out", "task"), others=1)
    if not said.others:
        raise ConfigError(
            "Which inputs? A folder of pictures, a picture, a file (.npy, .npz, .csv, .parquet), or the "
            f"name of a data set. {USAGE}"
        )
    (inputs,) = said.others
    out, task = Path(said.options.get("out", "predictions.csv")).expanduser(), said.task()
    if out.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"out={out}: expected a name that ends in {', '.join(_ENDINGS)}.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        what = "is a folder" if out.is_dir() else "is in a folder that does not exist"
        raise ConfigError(f"out={out} {what}.")
    file = Path(inputs).expanduser()
    if file.exists() and out.exists() and out.samefile(file):
        raise ConfigError(f"out={out} would replace the inputs. Give another name.")
    if not said.trust:
        import_nothing_from(said.run)
    from .loading import load  # It imports torch, which typos must not wait for.
    from .prediction_files import write_predictions

    run = load(said.run, *said.settings, trust=said.trust)
    # As after Ctrl-C, what is written so far must be removed.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        count = write_predictions(run.predictor("ml predict"), inputs, out, task=task)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"{count:,} predictions: {out}")
    return 0
