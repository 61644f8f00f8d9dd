# ruff: noqa
import collections, itertools, heapq, bisect, weakref, operator

print(
    collections.Counter("abca").most_common(1),
    list(itertools.permutations("abc", 2))[:3],
    heapq.nsmallest(2, [3, 1, 2]),
    bisect.bisect([1, 2, 2, 3], 2),
    collections.OrderedDict(a=1),
    collections.deque([1, 2], 1),
    hash(12345),
    hash(1.5),
    {3, 1, 2},
)
