"""Projections, Kronecker operators, conjugate gradients, dampings, rank correlation."""
