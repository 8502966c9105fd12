"""Shell completion of settings and their values, without importing torch.

eval "$(ml --completion bash)"      # or zsh
ml --completion fish | source
"""

from __future__ import annotations

import os

from ...agents import NAMES as AGENTS
from ...agents.blocks import NAMES as BLOCKS
from ...agents.continual import NAMES as STRATEGIES
from ...envs import NAMES as ENVS
from ...replay.errors import ConfigError
from .bare_words import COMMANDS
from .presets import presets
from .schema import ALIASES, PARTS, schema

_SCRIPTS = {
    "bash": "complete -o nospace -C 'ml --complete' ml",
    "zsh": "autoload -U +X bashcompinit && bashcompinit\ncomplete -o nospace -C 'ml --complete' ml",
    "fish": "complete -c ml -f -a '(COMP_LINE=(commandline -cp) ml --complete whole)'",
}


def script(shell: str) -> str:
    """The code that a shell evaluates to complete `ml`.

    Raises:
        ConfigError: If the shell is unknown.
    """
    if shell not in _SCRIPTS:
        raise ConfigError(f"`ml --completion {shell}`: choose one of {', '.join(_SCRIPTS)}.")
    return _SCRIPTS[shell]


def candidates(line: str, *, whole: bool) -> list[str]:
    """Completions of a command line.

    Args:
        line: The text up to the cursor, as in the shell's COMP_LINE.
        whole: Whether to return whole words; bash and zsh start a new word after `=`.
    """
    word = "" if line.endswith(" ") else line.split(" ")[-1]
    key, equals, start = word.partition("=")
    if not equals:
        names = [f"{name}=" for name in (*schema(), *ALIASES, "task")]
        commands = (*COMMANDS, "--help", "--cfg", "-m")
        return [name for name in (*names, *commands) if name.startswith(word)]
    found = [value for value in _values(key) if value.startswith(start)]
    if whole:
        return [f"{key}={value}" for value in found]
    # Bash and zsh also begin a new word after a colon, as in `module:id`.
    done = start.rfind(":") + 1
    return [value[done:] for value in found]


def print_candidates(whole: bool) -> None:
    print("\n".join(candidates(os.environ.get("COMP_LINE", ""), whole=whole)))


def _values(key: str) -> list[str]:
    from .names import classes_here

    if key == "task":
        from .presets import of_the_user

        return [*presets(), *of_the_user()]
    key = ALIASES.get(key, key)
    setting = schema().get(key)
    if setting is None:
        return []
    if setting.kind.startswith("bool"):
        return ["true", "false", *setting.kind.split()[2:]]
    if setting.kind.startswith("one of"):
        return setting.kind.split()[2:]
    if setting.kind.startswith("list of"):
        return [f"[{name}]" for name in setting.kind.split()[2:]]
    if key == "env":
        from .environment_names import all_names

        return [*ENVS["env"], *all_names(), *classes_here()]
    if key in ("model", "dataset", "aug", "strategy", *PARTS):
        ours = [*AGENTS.get(key, ()), *ENVS.get(key, ()), *STRATEGIES.get(key, ())]
        blocks = BLOCKS["model"] if key in ("model", *PARTS) else ()
        return [*ours, *blocks, *classes_here()]
    return []
