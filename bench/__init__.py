"""Benchmarks: every figure as a ratio to the raw limit or a peer, measured in one interleaved run.

`python -m bench [NAME ...] [--json]`. Never part of the tests: a figure is reported, not asserted.
"""
