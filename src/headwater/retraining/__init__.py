"""A bank: recipe, jobs, retrained models, their outcomes; it grows; counterfactuals."""
