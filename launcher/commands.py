"""What `ml` does besides training: help, lists of names, plots, videos, completion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from ..agents.blocks import NAMES as BLOCKS
from ..replay.errors import ConfigError
from ..replay.shown import shown
from .settings.compose import compose
from .settings.presets import presets
from .settings.schema import schema

Command = Callable[[], "int | None"]  # Returns an exit code; None means 0.
Verb = Callable[[list[str]], "int | None"]  # The same, called with the words after it.

_EXAMPLES = """\
Antelope trains a PyTorch model in one call.

  ml                                            the default agent on the embedded digits
  ml model=Model dataset=MNIST                  Model: a class in a .py file of this directory
  ml model=model.py:Model model.hidden=64       which file, and an argument of its constructor
  ml optim=SGD optim.lr=1e-2 scheduler=CosineAnnealingLR scheduler.T_max=10
  ml dataset=MNIST tasks=5                      the classes as five tasks, one after another
  ml dataset=MNIST tasks=5 strategy=er strategy.capacity=500      with experience replay
  ml env=CartPole-v1                            a gymnasium environment, and an agent that fits it
  ml env=CartPole-v1 agent=PPO policy=Policy critic=Critic        from your own modules
  ml generate=true dataset=MNIST                generate inputs like those of a data set
  ml seed=1 resume=true                         continue an interrupted run
  ml task=classify/mnist                        a built-in preset
  ml task=mine.yaml                             your own: settings in a file, below `# @package _global_`
  ml -m seed=1,2,3 lr=1e-3,1e-2                 every combination, one run each
  ml play runs/default/DQN/CartPole-v1/0 render=true    watch a trained policy
  ml plot                                       learning curves of all runs, mean over seeds

Commands: ml models | datasets | envs | strategies | tasks      what can be named
          ml envs WORD                          environments with that word, or of that package
          ml plot [FOLDER] [metric=NAME] [out=FILE]   draw the runs below a folder (default: runs)
          ml table [FOLDER ...] [metric=NAME] [by=SETTING,...] [format=tex]    the same as a ranked table
          ml play RUN [episodes=3] [render=true] [video=out.mp4]   play episodes with a run's policy
          ml eval RUN [dataset=...] [metrics=[f1]]    metrics on the held-out rows, or on other data
          ml predict RUN INPUTS [out=predictions.csv] predictions for pictures, files or a data set
          ml resume RUN                               continue an interrupted run
          ml export RUN [format=onnx] [out=FILE]      write a run's model as onnx, torch or safetensors
          ml compat FILE                        what a Mammoth model file uses that is not available
          ml --cfg job [WORDS]                  the composed configuration, without training
          ml --completion bash | zsh | fish     shell completion: eval "$(ml --completion bash)"
"""


def command(words: list[str]) -> Command | None:
    """The command that the console words ask for, or None if they ask for training.

    Words that are neither a command nor a setting are left to the composition, which refuses them.
    """
    if _HELP & set(words):
        return print_help
    if words and words[0] in _VERBS:
        return functools.partial(_VERBS[words[0]], words[1:])
    if _CONFIG & set(words):
        return functools.partial(_print_config, words)
    return None


def print_help() -> None:
    """Print examples, then every setting with its default, meaning and type."""
    import shutil
    import textwrap

    print(_EXAMPLES)
    width = max(72, shutil.get_terminal_size((100, 24)).columns)
    section = ""
    left = max(len(f"{key}={s.default}") for key, s in schema().items()) + 2
    for key, setting in schema().items():
        if setting.section != section:
            section = setting.section
            print(f"\n{section}")
        head = f"  {key}={setting.default}"
        text = f"{setting.meaning} ({setting.kind})"
        lines = textwrap.wrap(text, width - left - 2, break_on_hyphens=False)
        print(f"{head:<{left + 2}}{lines[0]}")
        for line in lines[1:]:
            print(" " * (left + 2) + line)
    print(
        "\nA setting of type name accepts the arguments of its object as sub-keys (model.hidden=64) and,\nin "
        "Python, the object itself: ml(model=Model, optim={'_target_': AdamW, 'lr': 1e-2})."
    )


def _print_version(_: list[str]) -> None:
    import antelope

    print(f"antelope {antelope.__version__}")


def _print_config(words: list[str]) -> None:
    rest = list(words)
    flag = next(w for w in rest if w in ("--cfg", "-c"))
    position = rest.index(flag)
    what = rest[position + 1] if position + 1 < len(rest) else ""
    if what != "job":
        raise ConfigError(
            f"`--cfg {what}`: only --cfg job exists; it prints the composed settings."
        )
    del rest[position : position + 2]
    print(shown(compose(rest, {}).yaml()), end="")


def _print_names(kind: str, title: str, words: list[str]) -> None:
    from .settings.imports import classes_here
    from .settings.names import builtin_names, describe_names, library_names

    if words:
        raise ConfigError(f"`ml {title}` accepts no further words, got {' '.join(words)}.")
    builtin = builtin_names(kind)
    blocks = BLOCKS["model"] if kind == "model" else ()
    if builtin:
        print("Built in\n" + describe_names(name for name in builtin if name not in blocks))
    if blocks:
        print(f"\nBlocks, which can also be parts of other models\n{describe_names(blocks)}")
    if kind == "model" and (here := classes_here()):
        print(f"\nClasses in the .py files here\n{describe_names(here)}")
    if kind == "strategy":
        print(
            "\nAlso a class of your own with any of the hooks: file.py:Name, in Python the class or object."
        )
        return
    names = library_names(kind)
    print("\nFrom torchvision\n" + describe_names(names))
    print("\nAlso file.py:Name, a dotted path, or @register('name') in your own code.")


def _print_environments(words: list[str]) -> None:
    from .settings.environment_list import print_environments

    print_environments(words)


def _print_presets(words: list[str]) -> None:
    from .settings.presets import of_the_user

    if words:
        raise ConfigError(f"`ml tasks` accepts no further words, got {' '.join(words)}.")
    found = presets() | of_the_user()
    width = max(map(len, found))
    for name, meaning in found.items():
        print(shown(f"task={name:<{width}}  {meaning}", line=True))


def _plot(words: list[str]) -> None:
    from .pictures.compare import plot_runs

    plot_runs(words)


def _table(words: list[str]) -> None:
    from .pictures.table_command import table_command

    table_command(words, _watch)


def _watch(folders: Sequence[Path]) -> None:
    from .sweep.table import watch

    watch(folders)


def _play(words: list[str]) -> int:
    from .inference.play_command import play_command

    return play_command(words)


def _eval(words: list[str]) -> int:
    from .inference.eval_command import eval_command

    return eval_command(words)


def _predict(words: list[str]) -> int:
    from .inference.predict_command import predict_command

    return predict_command(words)


def _resume(words: list[str]) -> int:
    from .inference.resume_command import resume_command

    return resume_command(words)


def _export(words: list[str]) -> int:
    from .export.command import export_command

    return export_command(words)


def _compat(words: list[str]) -> int:
    from .mammoth.compat import compat

    return compat(words)


def _print_completion(words: list[str]) -> None:
    from .settings.completion import script

    print(script(words[0] if words else ""))


def _complete(words: list[str]) -> None:
    from .settings.completion import print_candidates

    print_candidates("whole" in words)


_HELP, _CONFIG = (
    {"--help", "-h", "help"},
    {"--cfg", "-c"},
)  # Anywhere among the words, so not verbs.
_VERBS: dict[str, Verb] = {
    "models": functools.partial(_print_names, "model", "models"),
    "datasets": functools.partial(_print_names, "dataset", "datasets"),
    "envs": _print_environments,
    "strategies": functools.partial(_print_names, "strategy", "strategies"),
    "tasks": _print_presets,
    "plot": _plot,
    "table": _table,
    "play": _play,
    "eval": _eval,
    "predict": _predict,
    "resume": _resume,
    "export": _export,
    "compat": _compat,
    "version": _print_version,
    "--version": _print_version,
    "-V": _print_version,
    "--completion": _print_completion,
    "--complete": _complete,
}
