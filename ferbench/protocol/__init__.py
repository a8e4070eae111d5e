"""Which images are trained on and which are tested: rules as data, folds disjoint by construction, an audit."""
