"""What is on disk becomes a prepared dataset: 48×48 grey arrays, a table of samples and a card."""
