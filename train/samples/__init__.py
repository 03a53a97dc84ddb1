"""Samples of a trained generator: drawn from a run or an export, written to files, interpolated."""
