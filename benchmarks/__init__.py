"""Benchmarks of the ops against what people use today: `python -m benchmarks`. Rows land in benchmarks/results/."""
