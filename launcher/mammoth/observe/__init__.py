"""Models in the way of Mammoth: a class with `observe(inputs, labels, not_aug_inputs, epoch=None)`.

`observer` trains it, `provided` is what it is given, `options` its own options as settings. Code written
for Mammoth Lite imports from `launcher/mammoth.py`, which stands on these.
"""
