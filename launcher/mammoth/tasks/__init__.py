"""The sequence of tasks as Mammoth's models see it: its rows, its transforms, a user's own data."""
