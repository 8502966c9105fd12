"""The errors that bad input raises, each before any training starts, and that of a run that diverged."""

from collections.abc import Sequence

from .shown import shown


class _Printed(Exception):
    """An error whose message can be printed, whatever it quotes: see `shown`.

    Attributes:
        exit_code: Of a console command that ends with this error.
    """

    exit_code = 1

    def __init__(self, *args: object):
        super().__init__(*(shown(text) if isinstance(text, str) else text for text in args))


class ConfigError(_Printed, ValueError):
    """A setting, a name, or the user's model cannot be used as it was given."""

    exit_code = 2


class DataError(ConfigError):
    """The data cannot be found, read, or learnt from."""


class DownloadError(DataError):
    """A data set was downloaded, but what came is not it."""

    exit_code = 1


class CheckpointError(ConfigError):
    """A checkpoint is damaged, foreign, or does not fit the model."""


class Diverged(_Printed, RuntimeError):
    """Something in a run became NaN or infinite; the last good checkpoint was kept.

    Attributes:
        step: The run's step, as in train.csv; None: not known.
        tensor: What was found first: the name of a parameter, a buffer, a logged loss or a metric; None:
            not known.
        lr: The learning rate of the last update; None before the first, or if the model updates itself.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        step: int | None = None,
        tensor: str | None = None,
        lr: float | None = None,
    ):
        super().__init__(message)
        self.step, self.tensor, self.lr = step, tensor, lr


class SweepFailed(_Printed, RuntimeError):
    """Runs of a sweep failed or diverged; the message names them.

    Attributes:
        runs: Those that did not, in order.
    """

    def __init__(self, message: str, *, runs: Sequence[object] = ()):
        super().__init__(message)
        self.runs = list(runs)


class NotSaved(_Printed, RuntimeError):
    """A run ended because its checkpoints could not be written, `save_patience` times in a row."""


class RanksDiffer(_Printed, RuntimeError):
    """The ranks of a run are about to do different things, or one of them has failed or died."""
