"""The network of the paper as plain modules: each equation where it is used. Floor 1: knows no data."""
