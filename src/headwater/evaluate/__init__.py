"""Scores against retraining: LDS, tuning, counterfactual figures. No torch."""
