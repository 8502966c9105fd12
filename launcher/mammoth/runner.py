"""Mammoth's two calls: `load_runner` constructs a model and its sequence of tasks, `train` trains it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...replay import ConfigError
from ...replay.randomness import forked_randomness, seed_everything
from ..assembly.agent import build_agent
from ..assembly.device import build_device, device_wanted
from ..assembly.transforms import build_transforms
from ..assembly.world import build_world
from ..plainly import plainly
from ..settings.compose import compose
from ..settings.plan import make_plan
from ..settings.schema import schema
from .asked import Asked
from .checkpoints import Saver, load_checkpoint
from .inference import evaluate_only
from .methods import ObservingModel
from .observer import Observer
from .options import MORE, OF_THE_RUN
from .tasks.sequence import ContinualDataset

if TYPE_CHECKING:
    from ..run import Run


def load_runner(
    model: str | None = None,
    dataset: str | None = None,
    args: Mapping[str, Any] | Namespace | None = None,
    **names: object,
) -> tuple[Any, ContinualDataset]:
    """A model, ready to train, and its sequence of tasks.

    Args:
        model: A name given to `register_model`, or any that `ml(model=...)` knows.
        dataset: One of `get_dataset_names()`, such as `seq-mnist`.
        args: `lr`, and `batch_size` and `n_epochs` unless the data set has defaults for them; options
            of the model, of the data set and of the backbone; what `get_avail_args()` lists; and any
            setting of `ml`. A model may set `n_epochs` and `batch_size` itself.
        **names: The same as `model_name`, `dataset_name`, `experiment_args`.

    Raises:
        ConfigError: With every mistake at once.
        CheckpointError: If what `loadcheck` names does not fit the model.
    """
    given = {"model_name": model, "dataset_name": dataset, "experiment_args": args}
    if unknown := names.keys() - given.keys():
        raise ConfigError(f"load_runner has no argument {', '.join(unknown)}.")
    model_name, dataset_name, wanted = (names.get(name, value) for name, value in given.items())
    asked = Asked(str(model_name), str(dataset_name), _plain(wanted))
    code = asked.settings()
    plan = make_plan(compose((), code))
    device = build_device(device_wanted(plan))
    # Models read `n_epochs` even if steps bound a task.
    more = {**asked.values, "n_epochs": asked.args.get("n_epochs")}
    with forked_randomness(plan.seed), _more(more):
        world = build_world(plan)
        transforms = build_transforms(plan, world, device)
        seed_everything(plan.seed)  # Weights do not depend on how the data was read.
        observer, _ = build_agent(plan, world, device, transforms)
    if not isinstance(observer, Observer):
        raise ConfigError(f"{model_name} has no `observe`. Train it with ml(model=...).")
    _take_over(code, observer.model)
    sequence, values = observer.dataset, asked.values
    if values["loadcheck"] is not None:
        # A buffer that is filled starts its random streams from the global ones.
        with forked_randomness(plan.seed):
            load_checkpoint(observer, values["loadcheck"], whole=bool(values["inference_only"]))
    sequence.settings = code
    sequence.evaluates = Path(values["loadcheck"]) if values["inference_only"] else None
    sequence.saver = Saver(values) if values["savecheck"] else None
    return observer.model, sequence


def train(
    model: ObservingModel,
    dataset: ContinualDataset,
    args: Mapping[str, Any] | Namespace | None = None,
) -> Run:
    """Learn every task of the sequence, and evaluate after each.

    With `inference_only=1`, only evaluate the loaded checkpoint.

    Args:
        model, dataset: As returned by `load_runner`.
        args: Settings of the run to change, such as `n_epochs`, `path` or `resume`.

    Raises:
        ConfigError: If they come from different `load_runner` calls, or `args` contradict theirs.
    """
    own = model.dataset if hasattr(model, "dataset") else None
    if dataset.settings is None or own is not dataset:
        raise ConfigError(
            "train needs the model and the dataset that one load_runner(...) call returned."
        )
    settings = {key: value for key, value in dataset.settings.items() if key != "model"}
    made = vars(model.args) if hasattr(model, "args") else {}
    for key, value in _plain(args).items():
        if key in made and made[key] == value and key not in ("batch_size", "n_epochs"):
            continue  # As the model was constructed: nothing changes.
        name = OF_THE_RUN.get(key, key)
        if name not in schema() or name in ("model", "dataset", "optim", "lr", "weight_decay"):
            raise ConfigError(
                f"train: {key}={value} comes too late: the model is already constructed. Pass it to "
                "load_runner."
            )
        settings[name] = value
    if dataset.evaluates is not None:
        return evaluate_only({**settings, "model": model}, dataset.evaluates)
    saver = dataset.saver
    dataset.when_ended = None if saver is None else saver.task_ended
    try:
        run = _learn({**settings, "model": model})
    finally:
        dataset.when_ended = None  # A later run of the same objects may not save.
    if saver is not None:
        saver.finish(model, run)
    return run


def _learn(code: Mapping[str, Any]) -> Run:
    """A run with these settings, as `ml` makes it."""
    settings = compose((), code)

    def work() -> Run:
        from ..train import train  # Of the launcher: this module has a `train` of its own.

        return train(settings)

    return plainly(settings, work)


def _take_over(code: dict[str, Any], model: ObservingModel) -> None:
    """Let a model's constructor decide on epochs and batch size, as Mammoth does."""
    # An online method may set `args.n_epochs = 1` in its constructor, before the run has begun.
    made = vars(model.args) if hasattr(model, "args") else {}
    for key in ("n_epochs", "batch_size"):
        if (name := OF_THE_RUN[key]) in code:
            code[name] = made.get(key, code[name])


def _plain(args: object) -> dict[str, Any]:
    """The arguments as a dict.

    Raises:
        ConfigError: If they are neither a mapping nor a namespace.
    """
    if not isinstance(args, (Mapping, Namespace, type(None))):
        raise ConfigError(f"args={args!r:.40}: expected a dict, such as {{'lr': 0.1}}.")
    return dict(vars(args) if isinstance(args, Namespace) else args or {})


@contextmanager
def _more(values: Mapping[str, Any]) -> Iterator[None]:
    """Adds values to the `args` of a model that is constructed in the block."""
    token = MORE.set(values)
    try:
        yield
    finally:
        MORE.reset(token)
