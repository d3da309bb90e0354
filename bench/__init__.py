"""The benchmark: our figures beside those of peers that run for real, both in one run on one machine.

`make bench` runs all of it and rewrites `RESULTS.md`. Figures are medians of alternating runs; on shared machines the
ratios mean more than the seconds.
"""
