"""The learner, and everything that changes while a run learns."""
