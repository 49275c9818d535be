"""`attribute`, an experiment that becomes a run folder, and sweeps of fields."""
