import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvm.config import SplitConfig
from lvm.data import splits
from lvm.data.splits import assign_splits, duplicate_groups

IDS = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)
SHARES = st.builds(
    SplitConfig,
    val=st.sampled_from([0.01, 0.1, 0.3, 0.49]),
    test=st.sampled_from([0.01, 0.1, 0.3, 0.49]),
    salt=st.sampled_from(["", "2", "spring"]),
)
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


def test_text_that_stands_in_more_than_a_thousand_documents_links_nothing():
    texts = [np.array([7, 10_000 + i], np.uint64) for i in range(1001)]
    assert len(set(duplicate_groups(texts, 0.2))) == 1001
    assert len(set(duplicate_groups(texts[:1000], 0.2))) == 1


def test_boilerplate_does_not_hide_what_two_documents_share_besides(monkeypatch):
    monkeypatch.setattr(splits, "BOILERPLATE_DOCUMENTS", 3)
    texts = [np.array([7, *own], np.uint64) for own in ([20, 21], [20, 22], [30, 31], [32, 33])]
    assert duplicate_groups(texts, 0.3).tolist() == [0, 0, 1, 2]


def test_share_is_that_of_the_smaller_document_and_its_bound_is_included():
    small, large = np.array([1, 2], np.uint64), np.arange(2, 102, dtype=np.uint64)
    assert duplicate_groups([small, large], 0.5).tolist() == [0, 0]
    assert duplicate_groups([small, large], 0.51).tolist() == [0, 1]


def test_repeated_text_counts_once():
    refrain = np.array([5, 5, 5, 5, 8, 9], np.uint64)
    assert duplicate_groups([refrain, np.array([5, 6, 7], np.uint64)], 0.4).tolist() == [0, 1]
    assert duplicate_groups([refrain, np.array([5, 6, 7], np.uint64)], 1 / 3).tolist() == [0, 0]


def test_copies_of_copies_are_one_group():
    chain = [np.array([i, i + 1], np.uint64) for i in range(4)]
    assert duplicate_groups([*chain, np.array([90, 91], np.uint64)], 0.5).tolist() == [0, 0, 0, 0, 1]


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
    for salt in ("", "2"):
        found = assign_splits([f"document {i}" for i in range(5000)], one_each(5000), SplitConfig(val=0.1, test=0.2, salt=salt))
        assert abs(found.count("val") / 5000 - 0.1) < 0.02
        assert abs(found.count("test") / 5000 - 0.2) < 0.02


# Where a position leads

FIFTHS = SplitConfig(test=0.2, val=0.3)  # test below .2, val below .5


def placed(monkeypatch, positions: list[float]) -> list[str]:
    """The splits of documents whose hashes lie at `positions`."""
    at = {f"{i:02d}": position for i, position in enumerate(positions)}
    monkeypatch.setattr(splits, "_position", lambda doc_id, salt: at[doc_id])
    return assign_splits(list(at), one_each(len(at)), FIFTHS)


def test_positions_below_the_first_share_are_test_then_val_then_train(monkeypatch):
    assert placed(monkeypatch, [0.0, 0.1999, 0.2, 0.4999, 0.5, 0.9999]) == ["test", "test", "val", "val", "train", "train"]


def test_empty_split_gets_the_nearest_group_of_the_fullest_one(monkeypatch):
    cases = {
        (0.3, 0.6, 0.7, 0.9): ["val", "test", "train", "train"],
        (0.1, 0.9, 0.55, 0.7): ["test", "train", "val", "train"],
        (0.05, 0.15, 0.1, 0.9): ["test", "val", "test", "train"],
        (0.1, 0.25, 0.45, 0.3): ["test", "val", "train", "val"],
        (0.05, 0.15, 0.1, 0.45): ["test", "train", "test", "val"],  # .45 is nearer to train, but of a split with one group
        (0.1, 0.25, 0.42, 0.49): ["test", "val", "val", "train"],
        (0.8, 0.6, 0.7): ["train", "test", "val"],
        (0.02, 0.01, 0.03): ["val", "test", "train"],
        (0.3, 0.4, 0.35): ["test", "train", "val"],
    }
    assert {positions: placed(monkeypatch, list(positions)) for positions in cases} == cases


def test_fewer_than_three_groups_stay_where_they_are(monkeypatch):
    assert placed(monkeypatch, [0.6, 0.7]) == ["train", "train"]
    assert placed(monkeypatch, [0.1]) == ["test"]
    assert placed(monkeypatch, []) == []


@pytest.mark.parametrize("count", [1, 3])
def test_every_document_needs_a_group(count):
    with pytest.raises(ValueError):
        assign_splits(["a", "b"], one_each(count), FIFTHS)


def test_position_of_a_group_is_that_of_its_smallest_id(monkeypatch):
    at = {"a": 0.1, "b": 0.3, "c": 0.7, "d": 0.6}
    monkeypatch.setattr(splits, "_position", lambda doc_id, salt: at[doc_id])
    assert assign_splits(["d", "b", "c", "a"], np.array([0, 1, 0, 1]), FIFTHS) == ["train", "test", "train", "test"]
    assert assign_splits(["d", "b", "c", "a"], np.array([0, 1, 1, 2]), FIFTHS) == ["train", "val", "val", "test"]


# The salt


def letters(salt: str) -> str:
    """The first letters of the splits of forty documents."""
    found = assign_splits([f"document {i}" for i in range(40)], one_each(40), WIDE.model_copy(update={"salt": salt}))
    return "".join({"train": ".", "val": "v", "test": "t"}[split] for split in found)


def test_splits_are_the_same_from_release_to_release():
    assert letters("") == "t.vt.t.ttt..t....v.t.tt..vv.vtt.vv.v.v.."
    assert letters("2") == "..vvvv.t.t..vv.t.v.t.vv.t..t.ttvvvttvt.v"


@given(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_every_salt_divides_anew(one, other):
    ids = [f"document {i}" for i in range(200)]
    divided = [assign_splits(ids, one_each(200), WIDE.model_copy(update={"salt": salt})) for salt in (one, other, "")]
    assert (divided[0] == divided[1]) == (one == other)
    assert divided[2] not in divided[:2]
