"""From one call to a run: start at `train.py`, which shows the whole way; `ml.py` holds both doors."""
