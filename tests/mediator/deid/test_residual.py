from mediator.deid.residual import found_in, tokens


def test_whole_values_and_their_words_are_looked_for_short_ones_are_not():
    found = tokens([b"Jansen^Piet^de", b"A1", b"12345678 "])
    assert found == {b"jansen^piet^de", b"jansen", b"piet", b"12345678"}


def test_a_name_left_behind_is_found_whatever_its_case_or_encoding():
    assert found_in(b"... JANSEN ...", tokens([b"Jansen^Piet"]), [])
    assert found_in("Björling".encode(), tokens(["Björling".encode("latin-1")]), [])
    assert found_in("Björling".encode("latin-1"), tokens(["Björling".encode()]), [])
    assert not found_in(b"... nothing ...", tokens([b"Jansen^Piet"]), [])


def test_a_match_inside_our_own_values_is_chance_and_one_more_is_not():
    wanted = tokens([b"1234"])
    assert not found_in(b"2.25.991234 end", wanted, [b"2.25.991234"])
    assert found_in(b"2.25.991234 id 1234", wanted, [b"2.25.991234"])


def test_names_in_letters_outside_latin_do_not_match_everything():
    wanted = tokens(["ヤマダタロウ".encode()])
    assert b"" not in wanted and not found_in(b"anything at all", wanted, [])
