"""MLflow: runs, sweeps, what is sent and when, what is recorded about a run's origin.

Loads neither torch nor MLflow until a run starts.
"""
