"""Influence functions with K-FAC: Mlodozieniec et al. 2025, arXiv:2410.13850."""
