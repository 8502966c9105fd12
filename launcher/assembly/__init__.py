"""From what was planned to the parts of a run."""
