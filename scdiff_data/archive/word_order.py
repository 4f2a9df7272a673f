"""The order in which a label's words get their codes.

every cell is drawn       all words are known: natural order, but where a file's own categorical
has another one, that of the file
a sample is drawn         an experiment's words follow those of the experiments drawn before it,
so that a larger sample adds codes and moves none
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from natsort import natsorted


def sort_naturally(words: Sequence[str]) -> list[str]:
    """Words as people sort them: 2 before 10."""
    return list(natsorted(words))


def append_words(lists: Sequence[Sequence[str]]) -> list[str]:
    """The first list's words, then what is new in the second, and so on."""
    return list(dict.fromkeys(word for words in lists for word in words))


def merge_words(lists: Mapping[str, Sequence[str]]) -> list[str]:
    """All words in an order that keeps each list's, natural where the lists leave a choice.

    Parameters
    ----------
    lists
        Words by the experiment that they are from. Where two lists contradict each other, the one
        of the experiment whose id comes first holds.
    """
    words = sort_naturally(list({word for found in lists.values() for word in found}))
    after: dict[str, set[str]] = {word: set() for word in words}
    for _, found in sorted(lists.items()):
        if list(found) == sort_naturally(list(found)):
            continue  # says nothing that natural order does not
        for word, following in pairwise(found):
            if not _reaches(after, following, word):
                after[word].add(following)
    if not any(after.values()):
        return words
    n_before = dict.fromkeys(words, 0)
    for followers in after.values():
        for word in followers:
            n_before[word] += 1
    order: list[str] = []
    left = words
    while left:
        word = next(word for word in left if not n_before[word])
        order.append(word)
        left.remove(word)
        for following in after[word]:
            n_before[following] -= 1
    return order


def _reaches(after: Mapping[str, set[str]], start: str, goal: str) -> bool:
    seen, waiting = {start}, [start]
    while waiting:
        word = waiting.pop()
        if word == goal:
            return True
        waiting += after[word] - seen
        seen |= after[word]
    return False
