"""Builds the parts of a run from its plan: world, model, replay, optimiser, schedule."""
