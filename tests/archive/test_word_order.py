"""Words get codes in an order that people expect, and that a larger sample leaves."""

from hypothesis import given
from hypothesis import strategies as st

from scdiff_data.archive.word_order import append_words, merge_words, sort_naturally

lists = st.dictionaries(
    st.sampled_from(["E1", "E2", "E3"]), st.lists(st.sampled_from("abcdefgh"), unique=True)
)


def test_numbers_in_words_are_sorted_as_numbers() -> None:
    assert sort_naturally(["10", "2", "1", "type 10", "type 9"]) == [
        *("1", "2", "10", "type 9", "type 10"),
    ]


def test_categoricals_keep_their_order_and_ties_are_natural() -> None:
    stages = ["young", "adult", "old"]
    assert merge_words({"a": stages, "b": ["adult", "old"]}) == stages
    assert merge_words({"a": ["B cell", "T cell"], "b": ["NK cell", "T cell"]}) == [
        *("B cell", "NK cell", "T cell"),
    ]


def test_where_two_files_contradict_each_other_the_first_id_holds() -> None:
    merged = merge_words({"b": ["z", "a", "y"], "a": ["y", "a", "x"]})
    assert merged.index("y") < merged.index("a") < merged.index("x")


@given(lists)
def test_a_merged_order_has_every_word_once_and_keeps_a_single_list(
    words: dict[str, list[str]],
) -> None:
    merged = merge_words(words)
    assert sorted(merged) == sorted({word for found in words.values() for word in found})
    assert merge_words(dict(reversed(words.items()))) == merged  # not by the order of the draw
    for name, found in words.items():
        assert merge_words({name: found}) == found or found == sort_naturally(found)


@given(lists)
def test_a_larger_sample_moves_no_code(words: dict[str, list[str]]) -> None:
    drawn = list(words.values())
    for n in range(len(drawn)):
        small, large = append_words(drawn[:n]), append_words(drawn)
        assert large[: len(small)] == small
