"""Operators: Gram, Gauss–Newton, K-FAC, EK-FAC; how they are estimated and applied."""
