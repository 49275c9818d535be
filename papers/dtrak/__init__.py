"""D-TRAK: Zheng et al. 2023, arXiv:2311.00500."""
