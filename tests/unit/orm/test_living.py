"""The set of living objects."""

import gc

from riverrun.orm.living import Living


class _Item:
    """An object that can be referenced weakly."""


def test_forgets_what_is_dropped() -> None:
    """An object leaves the set when it is dropped."""
    living: Living[_Item] = Living()
    item = _Item()
    living.add(item)
    living.add(item)
    assert list(living) == [item]
    assert living
    del item
    gc.collect()
    assert not living
    assert list(living) == []


def test_added_while_iterated_over() -> None:
    """What is added meanwhile is left out, and raises nothing."""
    living: Living[_Item] = Living()
    items = [_Item() for _ in range(3)]
    for item in items:
        living.add(item)
    found = []
    for item in living:
        found.append(item)
        items.append(_Item())
        living.add(items[-1])
    assert found == items[:3]
