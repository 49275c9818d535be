"""Denoiser, schedules, draws, measurements, samplers, encoding."""
