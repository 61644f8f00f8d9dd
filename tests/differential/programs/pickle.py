# ruff: noqa
import pickle, copy

d = {"a": [1, (2, {3}), None], "b": b"x", "c": 1 + 2j}
d["self"] = d
for v in range(6):
    e = pickle.loads(pickle.dumps(d, v))
    print(e["a"], e["self"] is e, sorted(e))
print(copy.deepcopy([d])[0]["c"])
