"""What a run leaves behind and shows: directory, checkpoints, log, console."""
