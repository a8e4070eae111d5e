"""Speed of inference, training and preparation, beside reference loops, with the error of results against float64."""
