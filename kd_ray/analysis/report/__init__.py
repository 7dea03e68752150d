"""The report of a sweep: one page, its figures and its tables, from the tables and the comparisons of a store."""
