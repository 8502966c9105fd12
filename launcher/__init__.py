"""From one call to a run. `ml.py` holds both doors, `loop.py` the one loop."""
