"""The arguments that `load_runner` accepts for every model: those of Mammoth and Mammoth Lite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

from ...replay import ConfigError
from .schedulers import SCHEDULERS

REQUIRED = {
    "dataset": "which sequence of tasks: a registered name",
    "model": "which model: a registered name",
    "lr": "learning rate",
    "batch_size": "rows of a batch",
    "n_epochs": "passes over each task's data",
}


@dataclass(frozen=True)
class Argument:
    """An optional argument.

    Attributes:
        default: Its value if it is not given.
        kind: `int`, `float`, `str`, `flag` (0 or 1), `ints`, or a tuple of the allowed words.
        help: What it does in Antelope.
    """

    default: Any
    kind: str | tuple[str, ...]
    help: str


SERVED = {
    "backbone": Argument(
        None, "str", "the network: a registered name; default: the data set's own"
    ),
    "joint": Argument(0, "flag", "learn all classes as a single task"),
    "permute_classes": Argument(0, "flag", "classes come in an order drawn from the seed"),
    "optimizer": Argument("sgd", "str", "an optimiser of torch.optim"),
    "optim_wd": Argument(0.0, "float", "weight decay"),
    "optim_mom": Argument(0.0, "float", "momentum"),
    "optim_nesterov": Argument(0, "flag", "Nesterov's momentum"),
    "lr_scheduler": Argument(None, SCHEDULERS, "how the learning rate falls within each task"),
    "scheduler_mode": Argument("epoch", ("epoch", "iter"), "what the scheduler counts"),
    "lr_milestones": Argument((), "ints", "when multisteplr multiplies the learning rate"),
    "sched_multistep_lr_gamma": Argument(0.1, "float", "what multisteplr multiplies it by"),
    "validation": Argument(
        None, "float", "share of each class's training rows to validate with; from 1, a percentage"
    ),
    "fitting_mode": Argument("epochs", ("epochs", "iters"), "whether n_epochs or n_iters counts"),
    "n_iters": Argument(None, "int", "steps of each task, with fitting_mode=iters"),
    "savecheck": Argument(
        None, ("last", "task"), "write a checkpoint at the end, or after each task"
    ),
    "ckpt_name": Argument(
        None, "str", "what savecheck calls its files; default: model and data set"
    ),
    "checkpoint_path": Argument("checkpoints", "str", "folder of savecheck"),
    "loadcheck": Argument(
        None, "str", "start from a checkpoint: a file of Mammoth's, or a run directory of ours"
    ),
    "inference_only": Argument(0, "flag", "evaluate the loadcheck checkpoint, without training"),
    "seed": Argument(None, "int", "seeds the weights, the order of the data and of the classes"),
    "device": Argument(None, "str", "cpu, cuda, cuda:1, ...; default: a GPU if there is one"),
    "base_path": Argument(None, "str", "folder of data sets"),
    "non_verbose": Argument(0, "flag", "show no progress"),
}
# Arguments of Mammoth's own infrastructure (W&B, SLURM, logging), which have no effect here. Any value other
# than the default causes a warning: nothing that is learnt depends on it, so it is not an error.
IDLE = {
    "num_workers": 0,
    "debug_mode": 0,
    "nowand": 1,
    "wandb_name": None,
    "wandb_entity": None,
    "wandb_project": None,
    "disable_log": 0,
    "notes": None,
    "results_path": "results/",
    "code_optimization": 0,
    "distributed": "no",
    "save_checkpoint_mode": "safe",
    "save_after_interrupt": 1,
    "enable_other_metrics": 0,
    "eval_epochs": None,
}
# Arguments of Mammoth that change what is learnt and are not supported: Mammoth's default, and advice.
# Ignoring them would train a different model from the one requested, so any other value is an error.
_UNSERVED: dict[str, tuple[Any, str]] = {
    "drop_last": (0, "The last batch of a pass is learnt too."),
    "early_stopping_patience": (5, "Pass early_stopping.patience=N, a setting of ml."),
    "early_stopping_metric": ("loss", "Pass early_stopping.patience=N, a setting of ml."),
    "early_stopping_freq": (1, "Pass eval_every=N, a setting of ml."),
    "early_stopping_epsilon": (1e-6, "Pass early_stopping.patience=N, a setting of ml."),
    "custom_class_order": (None, "Pass class_order=[...], a setting of ml."),
    "custom_task_order": (None, "Pass class_order=[...], a setting of ml."),
    **dict.fromkeys(("label_perc", "label_perc_by_task", "label_perc_by_class"), (1.0, "")),
    "noise_type": ("symmetric", ""),
    "noise_rate": (0.0, ""),
    "disable_noisy_labels_cache": (0, ""),
    "cache_path_noisy_labels": ("noisy_labels", ""),
    "validation_mode": ("current", ""),
    "dataset_config": (None, "Pass the values in that file as arguments."),
    "model_config": ("default", "Pass the values in that file as arguments."),
    "load_best_args": (0, "Pass those values as arguments."),
    "start_from": (None, ""),
    "stop_after": (None, "Iterate over the tasks: for task in ml.tasks(...)."),
}

# Arguments that models read whether or not anyone passed them: Mammoth's parser always sets them, so that
# `args.x` must not raise.
_READ_BY_MODELS = (
    *("backbone", "code_optimization", "custom_class_order", "custom_task_order", "debug_mode"),
    *("distributed", "drop_last", "eval_epochs", "fitting_mode", "inference_only", "joint"),
    *("label_perc", "label_perc_by_class", "loadcheck", "lr_milestones", "lr_scheduler", "n_iters"),
    *("noise_rate", "nowand", "num_workers", "permute_classes", "savecheck"),
    *("sched_multistep_lr_gamma", "scheduler_mode", "start_from", "stop_after", "validation"),
    "validation_mode",
)
_DEFAULTS: dict[str, Any] = {
    **{name: default for name, (default, _) in _UNSERVED.items()},
    **IDLE,
    **{name: argument.default for name, argument in SERVED.items()},
}
GENERAL: dict[str, Any] = {
    **{name: _DEFAULTS[name] for name in _READ_BY_MODELS},
    "eval_future": False,  # Read by newer releases of Mammoth only.
    "noise_type": None,  # Mammoth names a kind of noise even where its rate is 0.
    "non_verbose": True,  # The run shows its own progress.
}


_NUMBERS = {"lr": "float", "batch_size": "int", "n_epochs": "int"}


def read(given: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """The arguments, those of every model converted to their types: numbers may be given as text.

    Args:
        given: The arguments by name.
        mistakes: Receives a message for each that cannot be converted; it is left out of the result.
    """
    kinds: dict[str, Any] = {name: argument.kind for name, argument in SERVED.items()} | _NUMBERS
    values = dict(given)
    for name, kind in kinds.items():
        if values.get(name) is None or (name == "backbone" and not isinstance(values[name], str)):
            continue
        try:
            values[name] = _converted(values[name], kind)
        except (TypeError, ValueError):
            mistakes.append(f"{name}={values.pop(name)}: expected {_in_words(kind)}.")
    return values


def served(given: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """The supported arguments, completed with defaults."""
    values = {name: argument.default for name, argument in SERVED.items()}
    values |= {name: given[name] for name in SERVED if given.get(name) is not None}
    for name, (default, advice) in _UNSERVED.items():
        if given.get(name) is not None and not is_default(given[name], default):
            mistakes.append(f"{name}={given[name]} is not supported. {advice}".rstrip())
    _check(values, mistakes)
    values["lr_milestones"] = list(values["lr_milestones"])
    return values


def _check(values: Mapping[str, Any], mistakes: list[str]) -> None:
    """Check arguments against each other."""
    if values["lr_scheduler"] == "multisteplr" and not values["lr_milestones"]:
        mistakes.append("lr_scheduler=multisteplr needs lr_milestones, such as [10, 20].")
    if values["lr_scheduler"] != "multisteplr" and values["lr_milestones"]:
        mistakes.append("lr_milestones needs lr_scheduler=multisteplr.")
    if (values["fitting_mode"] == "iters") != (values["n_iters"] is not None):
        mistakes.append("fitting_mode=iters and n_iters=N go together.")
    share = values["validation"]
    if share is not None and not 0 <= share <= 50:
        mistakes.append(
            f"validation={share}: expected a share up to 0.5, or a percentage up to 50."
        )
    if values["inference_only"] and values["loadcheck"] is None:
        mistakes.append("inference_only=1 needs loadcheck=PATH: nothing has been learnt yet.")


def share_of(validation: float | None) -> float | None:
    """A share in [0, 0.5], or None. As in Mammoth, a number from 1 on is a percentage."""
    if not validation:
        return None
    return validation if validation < 1 else validation / 100


def known() -> list[str]:
    """Names of all supported arguments."""
    return [*REQUIRED, *SERVED]


def means_nothing(name: str, value: object) -> bool:
    """Whether an argument has no effect: it has Mammoth's default, or is a note on the run."""
    if name in _NOTES:
        return True
    return name in _UNSERVED and is_default(value, _UNSERVED[name][0])


# What Mammoth writes into `args` itself, which its checkpoints hold.
_NOTES = ("conf_jobnum", "conf_timestamp", "conf_host", "conf_git_hash", "conf_external_path")


def is_default(value: object, default: object) -> bool:
    """Whether a value equals the default (a number, text or None) however it is spelt: `true` is 1.

    Checkpoints and YAML files hold the same argument as text, bool or number.
    """
    if isinstance(default, (int, float)):
        word = str(value).lower()
        try:
            return float(_FLAGS.get(word, word)) == default
        except ValueError:
            return False
    return default is not None and str(value).lower() == str(default)


def _converted(value: object, kind: str | tuple[str, ...]) -> Any:
    if isinstance(kind, tuple):
        text = str(value).lower()
        if text not in kind:
            raise ValueError
        return text
    if kind == "ints":
        values = value.split() if isinstance(value, str) else value
        return [
            _converted(item, "int")
            for item in (values if isinstance(values, Iterable) else [values])
        ]
    if kind == "flag":
        text = str(value).lower()
        if text not in _FLAGS:
            raise ValueError
        return _FLAGS[text]
    if kind == "str":
        return str(value)
    # `lr=true` is a mistake, though Python would make it 1.0.
    if isinstance(value, bool) or not isinstance(value, (str, SupportsFloat)):
        raise TypeError
    # `1e3` and `10.0` are whole numbers, as YAML and JSON write them; `int("1e3")` would refuse them.
    number = float(value)
    if kind == "int" and number != int(number):
        raise ValueError
    return int(number) if kind == "int" else number


_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "y", "yes"), 1),
    **dict.fromkeys(("0", "false", "f", "n", "no"), 0),
}


def _in_words(kind: str | tuple[str, ...]) -> str:
    if isinstance(kind, tuple):
        return f"one of {', '.join(kind)}"
    words = {"flag": "0 or 1", "ints": "a list of whole numbers", "int": "a whole number"}
    return {**words, "float": "a number", "str": "text"}[kind]


def refuse(mistakes: list[str]) -> None:
    """Raise one error for all mistakes, if any."""
    if mistakes:
        raise ConfigError("\n".join(mistakes))
