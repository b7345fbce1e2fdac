"""Ray Train without Ray Data and pandas, which it imports for the names of types: half of what importing it costs.

Only while Ray Train is imported do placeholders stand for them. Whoever imports them afterwards gets the real ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAMES = ("ray.data", "pandas")


class Placeholder(ModuleType):
    """A module of which every name is a class of its own."""

    __path__ = []  # noqa: RUF012  # a package, whatever is asked for in it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if unneeded(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


def unneeded(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in NAMES)


@contextmanager
def without_types() -> Iterator[None]:
    """Within the block, what is imported finds placeholders; none where one of the real ones is there already."""
    if any(name in sys.modules for name in NAMES):
        yield
        return
    finder = Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if unneeded(name) and isinstance(module, Placeholder)]:
            del sys.modules[name]
            above, _, last = name.rpartition(".")
            if above in sys.modules:
                vars(sys.modules[above]).pop(last, None)
