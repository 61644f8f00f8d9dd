# ruff: noqa
import warnings

warnings.simplefilter("error")
try:
    warnings.warn("w", DeprecationWarning)
except DeprecationWarning as e:
    print(e)
warnings.simplefilter("default")
print(__name__)
