"""Two studios drew the same emoji: an example of known authorship."""
