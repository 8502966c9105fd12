"""The loop, the learner and all that changes while a run learns."""
