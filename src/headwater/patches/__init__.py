"""The posterior over training patches, and its maps."""
