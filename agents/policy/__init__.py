"""From a module's output to actions: distributions, heads, parts, states, advantages."""
