"""Which of many files is fetched next, and which leave where there is no room for all.

Wanted are files that somebody waits for, and then those of plans: lists of files that will be
needed together, in the order in which they will be. The newest plan comes first; it is carried out
as far as there is room for what it needs sooner.
"""

from collections import deque
from collections.abc import Iterator, Sequence


class Wanted:
    """What is wanted of files that are known by their numbers."""

    def __init__(self) -> None:
        self._now: list[int] = []
        self._plans: dict[int, deque[tuple[int, ...]]] = {}

    def ask(self, files: Sequence[int]) -> None:
        """These are waited for, and no others are."""
        self._now = list(files)

    def extend(self, plan: int, stretches: Sequence[Sequence[int]], *, n_over: int) -> None:
        """So many of a plan's first stretches are over, and these come at its end."""
        stretches_left = self._plans.setdefault(plan, deque())
        stretches_left.extend(tuple(files) for files in stretches)
        for _ in range(min(n_over, len(stretches_left))):
            stretches_left.popleft()

    def close(self, plan: int) -> None:
        """Nothing more is needed of a plan."""
        self._plans.pop(plan, None)

    @property
    def in_use(self) -> set[int]:
        """What is waited for, and the newest plan's first stretch."""
        newest = next(reversed(self._plans.values()), deque[tuple[int, ...]]())
        return {*self._now, *(newest[0] if newest else ())}

    def walk(self) -> Iterator[tuple[int, frozenset[int]]]:
        """Each file in its turn, some twice, and what must not leave for its sake."""
        waited = frozenset(self._now)
        for file in self._now:
            yield file, waited
        for stretches in reversed(self._plans.values()):
            sooner = set(waited)
            for files in tuple(stretches):
                sooner.update(files)
                kept = frozenset(sooner)
                for file in files:
                    yield file, kept
