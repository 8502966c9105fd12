"""Tasks and strategies in a loop of the user's own, without the launcher."""
