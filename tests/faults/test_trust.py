"""Row 38: trust in keywords is what a file of code says, not what a file of settings holds.

This file says so only inside of text, since it is one of the files whose code runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from antelope.launcher.settings.compose import compose
from antelope.replay import ConfigError

CALLS = {
    "ml(**given, trust=True)": True,
    "ml(**{**given, 'trust': True})": True,
    "settings = dict(trust=True)\ncall = lambda **all: ml(**all)\ncall(**settings)": True,
    "ml('trust=true', **given)": True,
    "ml(**of_file)": False,
    "ml('trust=true', **of_file)": True,
    "of_file.get('trust')\nml(**of_file)": False,
    "def other():\n    dict(trust=True)\nml(**of_file)": False,
    "def main():\n    ml(**settings)\nsettings = {\n    'lr': 0.1,\n    'trust': True,\n}\nmain()": True,
    "dict(trust=False)\nml(**of_file)": False,
}


@pytest.mark.row(38)
@pytest.mark.parametrize(("call", "trusted"), CALLS.items())
def test_row_38_trust_in_keywords_is_what_the_code_says(
    call: str, trusted: bool, workdir: Path
) -> None:
    found = []

    def asked(*words: str, **settings: object) -> None:
        found.append(compose(words, settings).trusts)

    script = workdir / "script.py"
    script.write_text(call)
    names = {"ml": asked, "given": {"lr": 0.1}, "of_file": {"lr": 0.1, "trust": bool(1)}}
    if trusted:
        exec(compile(call, str(script), "exec"), names)
        assert found == [True]
    else:
        with pytest.raises(ConfigError, match="not written in the code that calls"):
            exec(compile(call, str(script), "exec"), names)
