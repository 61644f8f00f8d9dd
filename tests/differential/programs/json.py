# ruff: noqa
import json

print(
    json.dumps({"b": [1, 2.5, None, True, "ä\n"], "a": {}}, indent=1, sort_keys=True),
    json.loads('[1e400, -0.0, "\\ud83d\\ude00"]'),
    json.dumps("ä", ensure_ascii=False),
)
