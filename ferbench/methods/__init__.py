"""Methods: what learns from a training set and gives probabilities for a test set.

``interface`` says what a family of methods implements, ``recipes`` reads ``baselines/*.toml``, ``registry`` finds
the family that a recipe names. Each family has a package of its own here and imports no other.
"""
