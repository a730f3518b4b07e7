"""What the tests of the worker share."""

from worker.fixtures import chain, spawn_worker, start_worker, state_of, steps_of

__all__ = ["chain", "spawn_worker", "start_worker", "state_of", "steps_of"]
