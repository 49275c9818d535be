"""Scores and files of names that all tests of credit share."""

from toy_credit import values_fixture, written_fixture  # noqa: F401
