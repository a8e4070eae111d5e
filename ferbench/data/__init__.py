"""What is on disk becomes a prepared set: 48×48 grey arrays, a table of samples and a card."""
