"""Trees of values: walked, mapped and named, whatever their keys hold."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from antelope.replay.field_names import named, nested
from antelope.replay.tree import at_path, map_tree, named_leaves, path_of, walk, zip_trees

KEYS = st.text("a/:%~3A0. é", max_size=5)
TREES: Any = st.recursive(
    st.integers(), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_leaves=8
)


@given(TREES)
def test_every_leaf_has_a_name_of_its_own_that_leads_back_to_it(tree: Any) -> None:
    names = named_leaves(tree)
    assert list(names.values()) == [leaf for _, leaf in walk(tree)]
    for name, leaf in names.items():
        assert at_path(tree, path_of(name)) == leaf


@given(TREES)
def test_columns_become_the_tree_that_they_were_made_of(tree: Any) -> None:
    assert nested(dict(named("obs", tree))) == {"obs": tree}


@given(TREES)
def test_trees_are_joined_leaf_by_leaf(tree: Any) -> None:
    doubled = zip_trees(lambda x, y: x + y, tree, tree)
    assert doubled == map_tree(lambda x: 2 * x, tree)
