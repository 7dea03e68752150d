"""Data sets: what to learn from. One module for each family; none of them needs torch."""
