"""Keep pyarrow from importing pandas.

The first `pyarrow.array` of a process imports pandas where it is installed, which takes one to three seconds, to find
out whether its argument is a pandas object.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out")


def keep_pandas_out() -> None:
    """Make pyarrow treat pandas as not installed, unless it is imported already. Only for processes of batchland.

    pyarrow tries the import once. In other programs, this would change how pyarrow converts pandas objects.
    """
    if "pandas" not in sys.modules:
        finder = _NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(finder)
