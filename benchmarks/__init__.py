"""What rainbow-prefect costs beside hand-written code that does the same; `python -m benchmarks.run`."""
