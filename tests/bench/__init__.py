"""The benchmark: what Stellwerk reaches beside plain commits on the same server in the same minutes.

`python tests/bench/run.py` runs it; docs/performance.md tells what is measured and how to read it.
"""
