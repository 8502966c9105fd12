"""One subject per file: functions of all held-out outputs and labels, or of the matrix of scores."""
