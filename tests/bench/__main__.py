"""python -m bench, with the folder of tests on the path."""

import sys

from bench.main import main

sys.exit(main())
