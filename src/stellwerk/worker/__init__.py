"""The worker process: pumps, carries out worker steps through executors, and is the only part that reaches outside."""
