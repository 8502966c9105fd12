"""Many runs: words become trials, and an engine runs them wherever it is told to."""
