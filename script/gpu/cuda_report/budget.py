"""How long each step may take.

Every step has a weight. When its turn comes it may take the share of its weight among those still to come, of the time that
is left: what an earlier step did not need goes to all later ones.
"""

import time


class Budget:
    """`seconds` from now on, or without end (None)."""

    def __init__(self, seconds, clock=time.monotonic):
        self.clock = clock
        self.begin = clock()
        self.seconds = seconds

    def left(self):
        """Seconds that are left, 0 at least; None without end."""
        if self.seconds is None:
            return None
        return max(0.0, self.seconds - self.used())

    def used(self):
        return self.clock() - self.begin

    def share(self, weight, later):
        """Seconds for a step of this weight; `later` are the weights of those that come after it."""
        left = self.left()
        return None if left is None else left * weight / (weight + sum(later))
