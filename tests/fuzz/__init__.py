"""Fuzzing of everything that reads a file: one target for each reader, damaged and hostile files made from good ones.

`python -m tests.fuzz --cases 100000 --seed 0` runs all targets and prints a table; a fixed part of it is in the tests.
"""
