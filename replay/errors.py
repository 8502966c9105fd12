"""The errors that bad input raises, each before any training starts."""

from .shown import shown


class _Printed(Exception):
    """An error whose message can be printed, whatever it quotes: see `shown`."""

    def __init__(self, *args: object):
        super().__init__(*(shown(text) if isinstance(text, str) else text for text in args))


class ConfigError(_Printed, ValueError):
    """A setting, a name, or the user's model cannot be used as it was given."""


class DataError(ConfigError):
    """The data cannot be found, read, or learnt from."""


class CheckpointError(ConfigError):
    """A checkpoint is damaged, foreign, or does not fit the model."""


class Diverged(_Printed, RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint was kept."""


class NotSaved(_Printed, RuntimeError):
    """A run ended because its checkpoints could not be written, `save_patience` times in a row."""
