"""The errors that bad input raises, each before any training starts."""


class ConfigError(ValueError):
    """A setting, a name, or the user's model cannot be used as it was given."""


class DataError(ConfigError):
    """The data cannot be found, read, or learnt from."""


class CheckpointError(ConfigError):
    """A checkpoint is damaged, foreign, or does not fit the model."""


class Diverged(RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint was kept."""


class NotSaved(RuntimeError):
    """A run ended because its checkpoints could not be written, `save_patience` times in a row."""
