"""Names close to a misspelled one."""

from __future__ import annotations

from antelope.replay.suggestions import did_you_mean, nearest


def test_nearest_ignores_case() -> None:
    assert nearest("ac2agnet", ["DQN", "AC2Agent"]) == ["AC2Agent"]
    assert did_you_mean("ac2agnet", ["DQN", "AC2Agent"]) == " Did you mean `AC2Agent`?"
    assert did_you_mean("zzz", ["DQN"]) == ""
