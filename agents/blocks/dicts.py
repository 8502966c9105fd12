"""Dicts of inputs: advice where a module treats one as a tensor."""

from __future__ import annotations

from ...replay.spec import SpaceTree

# Parts of messages, in lower case, of Python and torch: a dict where they need a tensor, or an argument for
# each part.
_NO_TENSOR = ("dict", "positional argument")


def about_dicts(error: BaseException, space: SpaceTree, *, after: str = ".") -> str:
    """Advice about a dict of inputs that caused an error; empty for any other error.

    Args:
        error: What the module raised.
        space: Space of the inputs, or a dict of spaces.
        after: The text that the advice follows; torch's messages do not end in a full stop.
    """
    if not isinstance(space, dict) or isinstance(error, KeyError):
        return ""
    if not any(words in str(error).lower() for words in _NO_TENSOR):
        return ""
    begin = " " if after.endswith((".", "!", "?")) else ". "
    names = [f"obs[{name!r}]" for name in space]
    return f"{begin}The inputs come as one dict, forward(obs): {', '.join(names)}."
