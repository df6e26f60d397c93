"""What 60 duplicates of a slow request cost others: ``python -m benchmarks.overload --help``."""
