"""One metric per file: a function of all held-out outputs and labels."""
