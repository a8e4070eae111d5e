"""What tests share: datasets, runs, models and the command line. No test imports from another test."""
