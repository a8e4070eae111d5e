"""Speed with its proof: what is timed, how, beside which peers, and how far its results are from float64."""
