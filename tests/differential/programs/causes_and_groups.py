# ruff: noqa
try:
    try:
        1 / 0
    except ZeroDivisionError as e:
        raise ValueError("v") from e
except ValueError as e:
    print(repr(e.__cause__), e.__suppress_context__, e.__traceback__.tb_lineno)
try:
    raise ExceptionGroup("g", [OSError(2, "x"), ExceptionGroup("h", [KeyError(1)])])
except* OSError as e:
    print("os", e.exceptions)
except* KeyError as e:
    print("key", e)
