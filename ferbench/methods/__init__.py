"""Methods learn from a training set and predict probabilities for a test set.

``interface`` defines what a family of methods implements, ``recipes`` reads ``baselines/*.toml`` and
imports the family that a recipe names. Each family is a package here and imports no other.
"""
