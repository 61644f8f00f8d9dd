"""The document of scores keeps the sections that others have made."""

from tests.conformance.document import section, with_section, without_sections

_DOCUMENT = "# One\n\ntext\n\n## Below\n\nmore\n\n# Two\n\nend\n"


def test_a_section_goes_to_the_next_heading_of_the_first_level() -> None:
    assert section(_DOCUMENT, "# One") == "# One\n\ntext\n\n## Below\n\nmore\n"
    assert section(_DOCUMENT, "# On") == ""


def test_a_section_is_replaced_where_it_is_and_a_new_one_comes_last() -> None:
    assert with_section(_DOCUMENT, "# One", "# One\n\nnew\n") == "# One\n\nnew\n\n# Two\n\nend\n"
    assert with_section(_DOCUMENT, "# Three", "# Three\n") == f"{_DOCUMENT}\n# Three\n"


def test_what_is_not_ones_own_stays_as_it_is() -> None:
    assert without_sections(_DOCUMENT, ("# One",)) == "# Two\n\nend\n"
