"""A set of weakly referenced objects over which one thread may iterate while another adds."""

from collections.abc import Iterator
from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class Living(Generic[T]):
    """The objects that are still alive. A WeakSet would raise RuntimeError in the iterating thread.

    That thread may be one of the application's, in a flush.
    """

    def __init__(self) -> None:
        self._references: dict[int, ref[T]] = {}

    def __iter__(self) -> Iterator[T]:
        found = [reference() for reference in list(self._references.values())]
        return iter([item for item in found if item is not None])

    def __bool__(self) -> bool:
        return bool(self._references)

    def add(self, item: T) -> None:
        """Add an object, which leaves the set when it is dropped."""
        key = id(item)
        references = self._references
        references[key] = ref(item, lambda _: references.pop(key, None))
