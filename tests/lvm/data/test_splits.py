import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import SplitConfig
from lvm.data import splits
from lvm.data.splits import assign_splits, duplicate_groups

IDS = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)
SHARES = st.builds(SplitConfig, val=st.sampled_from([0.01, 0.1, 0.3, 0.49]), test=st.sampled_from([0.01, 0.1, 0.3, 0.49]))
WIDE = SplitConfig(val=0.3, test=0.3)


def one_each(n: int) -> np.ndarray:
    return np.arange(n)


def slow_groups(texts: list[set[int]], min_shared: float) -> list[frozenset[int]]:
    """The definition, spelled out: link pairs, then merge whatever touches."""
    groups = [{i} for i in range(len(texts))]
    for i, a in enumerate(texts):
        for j, b in enumerate(texts[:i]):
            if a & b and len(a & b) >= min_shared * min(len(a), len(b)) and groups[i] is not groups[j]:
                groups[i] |= groups[j]
                for k in groups[i]:
                    groups[k] = groups[i]
    return [frozenset(g) for g in groups]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=12), st.sampled_from([0.2, 0.5, 1.0]))
def test_groups_are_the_connected_components_of_documents_that_share_texts(texts, min_shared):
    found = duplicate_groups([np.array(t, np.uint64) for t in texts], min_shared)
    expected = slow_groups([set(t) for t in texts], min_shared)
    members = [frozenset(np.flatnonzero(found == group).tolist()) for group in found]
    assert members == expected


def test_text_that_stands_nearly_everywhere_links_nothing(monkeypatch):
    monkeypatch.setattr(splits, "BOILERPLATE_DOCUMENTS", 3)
    texts = [np.array([7, 100 + i], np.uint64) for i in range(4)]
    assert len(set(duplicate_groups(texts, 0.2))) == 4
    assert len(set(duplicate_groups(texts[:3], 0.2))) == 1


@given(st.data(), IDS, SHARES)
def test_group_is_never_divided(data, ids, config):
    groups = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(ids), max_size=len(ids))))
    found = np.array(assign_splits(ids, groups, config))
    assert set(found) <= {"train", "val", "test"}
    for group in groups:
        assert len(set(found[groups == group])) == 1


@given(IDS.filter(lambda ids: len(ids) >= 3), SHARES)
def test_three_groups_or_more_fill_every_split(ids, config):
    assert set(assign_splits(ids, one_each(len(ids)), config)) == {"train", "val", "test"}


@given(st.data(), IDS, SHARES)
def test_order_of_the_documents_does_not_matter(data, ids, config):
    shuffled = data.draw(st.permutations(ids))
    found = dict(zip(ids, assign_splits(ids, one_each(len(ids)), config), strict=True))
    assert dict(zip(shuffled, assign_splits(shuffled, one_each(len(ids)), config), strict=True)) == found


@given(st.text(max_size=5), st.lists(st.text(max_size=8), max_size=30))
def test_documents_stay_where_they_are_when_others_are_added(prefix, others):
    old = [f"{prefix}{i}" for i in range(80)]
    grown = [*(other for other in dict.fromkeys(others) if other not in old), *old]
    before = assign_splits(old, one_each(len(old)), WIDE)
    after = assign_splits(grown, one_each(len(grown)), WIDE)
    assert after[-len(old) :] == before


@given(st.text(max_size=5), st.integers(0, 79))
def test_group_stays_where_it_is_when_a_later_copy_joins_it(prefix, copied):
    ids = [f"{prefix}{i:02d}" for i in range(80)]
    before = assign_splits(ids, one_each(80), WIDE)
    after = assign_splits([*ids, ids[copied] + " (copy)"], np.array([*range(80), copied]), WIDE)
    assert after == [*before, before[copied]]


def test_shares_are_those_of_the_config():
    found = assign_splits([f"document {i}" for i in range(5000)], one_each(5000), SplitConfig(val=0.1, test=0.2))
    assert abs(found.count("val") / 5000 - 0.1) < 0.02
    assert abs(found.count("test") / 5000 - 0.2) < 0.02
