"""One program for each system, written as its own documentation recommends: `python -m streams.bench.systems.X JOB`."""
