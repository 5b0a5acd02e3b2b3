from mediator.deid.residual import tokens


def test_whole_values_and_their_words_are_looked_for_short_ones_are_not():
    found = tokens([b"Jansen^Piet^de", b"A1", b"12345678 "])
    assert found == {b"jansen^piet^de", b"jansen", b"piet", b"12345678"}


def test_a_name_is_looked_for_whatever_its_encoding():
    assert tokens(["Björling".encode("latin-1")]) == tokens(["Björling".encode()])


def test_names_in_letters_outside_latin_do_not_match_everything():
    assert b"" not in tokens(["ヤマダタロウ".encode()])
