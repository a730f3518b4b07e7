"""Run the benchmark from a checkout: python tests/bench/run.py --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the package is called bench, whatever the current folder

if __name__ == "__main__":
    from bench.main import main

    sys.exit(main())
