"""Gradients of each example, by two engines, and projected features through the store."""
