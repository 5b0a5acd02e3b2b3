"""What sums give away, against an oracle that tries every group of people there could be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mediator.airlock import differencing
from mediator.airlock.differencing import Group, Key, group_of

WORDS: Mapping[str, tuple[str, ...]] = {"sex": ("f", "m"), "stage": ("1", "2")}
CELLS = [frozenset(zip(WORDS, words, strict=True)) for words in product(*WORDS.values())]
MOST = 3


def cut(people: Mapping[Key, int], key: Key) -> int:
    return sum(number for cell, number in people.items() if key <= cell)


def keys_of(labels: tuple[str, ...]) -> Iterator[Key]:
    """Every cell and every sum of a table with these labels."""
    for words in product(*((*WORDS[label], None) for label in labels)):
        yield frozenset((label, word) for label, word in zip(labels, words, strict=True) if word)


def group(labels: tuple[str, ...], shown: Mapping[Key, int]) -> Group:
    return Group(labels, tuple(frozenset(WORDS[label]) for label in labels), dict(shown))


def possible(shown: Mapping[Key, int], hidden: Key) -> set[int]:
    """The oracle: every value of `hidden` over all populations of at most `MOST` a cell that show these numbers."""
    found = set()
    for numbers in product(range(MOST + 1), repeat=len(CELLS)):
        people = dict(zip(CELLS, numbers, strict=True))
        if all(cut(people, key) == number for key, number in shown.items()):
            found.add(cut(people, hidden))
    return found


def revealing(group: Group, groups: list[Group]) -> int:
    return differencing.revealing(groups)[groups.index(group)]


LABELS = st.sampled_from([("sex",), ("stage",), ("sex", "stage"), ()])
POPULATION = st.lists(st.integers(0, MOST), min_size=len(CELLS), max_size=len(CELLS))


@settings(max_examples=150, deadline=None)
@given(POPULATION, st.lists(LABELS, min_size=1, max_size=3), st.data())
def test_a_cell_that_the_rule_lets_be_hidden_no_sum_of_any_files_gives_away(
    numbers: list[int], tables: list[tuple[str, ...]], data: st.DataObject
) -> None:
    people = dict(zip(CELLS, numbers, strict=True))
    groups = []
    for labels in tables:
        keys = data.draw(st.sets(st.sampled_from(list(keys_of(labels)))))
        groups.append(group(labels, {key: cut(people, key) for key in keys}))
    shown = {key: number for each in groups for key, number in each.shown.items()}
    for each in groups:
        for hidden in each.hidden():
            values = possible(shown, hidden)
            assert cut(people, hidden) in values
            if revealing(each, groups) == 0 and cut(people, hidden) < MOST:
                assert len(values) > 1, "the rule let a table pass, and its hidden cell can be computed"


@settings(max_examples=60, deadline=None)
@given(POPULATION)
def test_a_whole_table_with_all_its_sums_hides_nothing_and_passes(numbers: list[int]) -> None:
    assume(sum(numbers))
    people = dict(zip(CELLS, numbers, strict=True))
    whole = group(("sex", "stage"), {key: cut(people, key) for key in keys_of(("sex", "stage"))})
    assert revealing(whole, [whole]) == 0 and whole.contradictions(sum(numbers)) == 0


def table(labels: tuple[str, ...], *rows: tuple[str, ...]) -> Group:
    keys, counts = [row[:-1] for row in rows], [int(row[-1]) if row[-1] else None for row in rows]
    return group_of(labels, [frozenset(WORDS[label]) for label in labels], keys, counts)


def test_a_total_gives_a_single_hidden_cell_away() -> None:
    hides = table(("sex",), ("f", "20"), ("m", ""), ("total", "21"))
    assert revealing(hides, [hides]) == 1
    alone = table(("sex",), ("f", "20"), ("m", ""))
    assert revealing(alone, [alone]) == 0


def test_a_row_left_out_is_as_hidden_as_an_empty_one() -> None:
    hides = table(("sex",), ("f", "20"), ("total", "21"))
    assert revealing(hides, [hides]) == 1


def test_a_total_in_another_file_gives_it_away_too() -> None:
    hides = table(("sex", "stage"), ("f", "1", "20"), ("f", "2", ""), ("m", "1", "30"), ("m", "2", "40"))
    assert revealing(hides, [hides]) == 0
    for other in (table(("sex",), ("f", "22"), ("m", "70")), table((), ("92",))):
        assert revealing(hides, [hides, other]) == 1


def test_another_cut_of_the_same_people_is_a_total_for_who_adds_it_up() -> None:
    hides = table(("sex",), ("f", "20"), ("m", ""))
    other = table(("stage",), ("1", "11"), ("2", "13"))
    assert revealing(hides, [hides, other]) == 1
    assert revealing(other, [hides, other]) == 0
    part = table(("stage",), ("1", "11"), ("2", ""))
    assert revealing(hides, [hides, part]) == 0, "who is of stage 2, nobody knows"


def test_numbers_that_contradict_one_another() -> None:
    assert table(("sex",), ("f", "20"), ("m", "30"), ("total", "51")).contradictions(100) == 1
    assert table(("sex",), ("f", "20"), ("m", "30"), ("total", "50")).contradictions(49) == 2
    assert table(("sex",), ("f", "20"), ("m", "30")).contradictions(50) == 0


def test_a_table_too_large_to_search_is_refused_unless_it_is_whole() -> None:
    words = frozenset(str(number) for number in range(200))
    wide = Group(("a", "b"), (words, words), {frozenset({("a", "1"), ("b", "1")}): 20})
    assert revealing(wide, [wide]) == 200 * 200 - 1


def test_a_search_that_is_given_up_finds_nothing_and_so_refuses() -> None:
    hides = table(("sex", "stage"), ("f", "1", "20"), ("m", "1", "30"))
    assert differencing.revealing([hides], steps=100) == [0]
    assert differencing.revealing([hides], steps=0) == [2]


@given(LABELS, POPULATION)
def test_what_can_be_added_up_is_every_sum_of_cells_that_all_stand_there(
    labels: tuple[str, ...], numbers: list[int]
) -> None:
    people = dict(zip(CELLS, numbers, strict=True))
    keys = list(keys_of(labels))
    cells = {key: cut(people, key) for key in keys if len(key) == len(labels)}
    whole = group(labels, cells)
    assert whole.sums() == {key: cut(people, key) for key in keys if len(key) < len(labels)}
    for gone in cells:
        sums = group(labels, {key: number for key, number in cells.items() if key != gone}).sums()
        assert set(sums) == {key for key in keys if len(key) < len(labels) and not key <= gone}
