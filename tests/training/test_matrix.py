"""Every installed stage with every way of tuning; and that the page which says so was made of
it."""

import pytest
from matrix import PAGE, RAN, WAYS, cells_of, page, run_cell, stages


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", stages())
def test_it_trains_what_it_should_and_loads_again(stage, way, tmp_path):
    run_cell(stage, way, tmp_path)
    said = cells_of(PAGE.read_text("utf-8")).get(stage)
    assert said and said[way] == RAN, "python tests/training/matrix.py writes the page anew"


def test_the_page_is_as_it_was_generated():
    text = PAGE.read_text("utf-8")
    assert page(cells_of(text)) == text
