"""Run folders small enough to report in a blink, and their ground truth."""

DETAILS = {"each": [-0.1, 0.1, 0.2, 0.3, 0.4], "resampled": [0.28, 0.30, 0.34]}
TRUTH = {
    "bank": "digits",
    "measurement": "simple",
    "subsets": 64,
    "seeds": 2,
    "splits": {
        "val": {
            "queries": 5,
            "lds": 0.31,
            "low": 0.28,
            "high": 0.34,
            "random": 0.0,
            "random_low": -0.03,
            "random_high": 0.03,
        }
        | DETAILS,
        "gen": {
            "queries": 5,
            "lds": 0.02,
            "low": -0.02,
            "high": 0.06,
            "random": 0.0,
            "random_low": -0.03,
            "random_high": 0.03,
        }
        | DETAILS,
    },
}
