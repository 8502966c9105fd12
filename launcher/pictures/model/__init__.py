"""A module drawn from one real forward: as picture and as text."""
