"""Pictures of runs, drawn by matplotlib without a display."""
