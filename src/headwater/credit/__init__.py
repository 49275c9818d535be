"""Scores by group: shares, groups, accuracy. No torch."""
