"""Folders to Denoisers; training, adapters, generation."""
