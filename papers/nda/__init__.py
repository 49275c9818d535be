"""NDA: Zhao et al. 2025, arXiv:2510.14269."""
