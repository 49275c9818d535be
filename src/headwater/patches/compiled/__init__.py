"""The inner loops of patch comparison, compiled by numba: functions of arrays and numbers, and no objects."""
