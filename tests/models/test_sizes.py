"""Named sizes: what is called matched costs what U-KAN base does, and docs/models.md says of each what it costs."""

import re
from pathlib import Path
from typing import Any

import pytest

from ukan.models import MODELS, model_sizes, named_sizes
from ukan.models.cost import Cost, model_cost

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
SIZES = [(model, size) for model in MODELS for size in named_sizes(model)]


def cost(model: str, **sizes: Any) -> Cost:
    return model_cost(model, 3, 1, sizes, (256, 256))


def rows() -> dict[tuple[str, str], list[str]]:
    found = re.findall(r"^\| `([a-z][^`]*)` \| `([^`]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {(model, size): rest.split(" | ") for model, size, rest in found}


@pytest.mark.parametrize("model", [name for name in MODELS if name != "ukan"])
def test_every_rival_has_a_size_of_its_paper_and_one_within_5_percent_of_u_kan_base(model: str) -> None:
    named = named_sizes(model)
    assert {"paper", "matched"} <= named.keys()
    assert cost(model, **named["matched"]).flops == pytest.approx(cost("ukan").flops, rel=0.05)


@pytest.mark.parametrize(("model", "size"), SIZES)
def test_a_named_size_sets_fields_the_network_has(model: str, size: str) -> None:
    assert named_sizes(model)[size] and named_sizes(model)[size].keys() <= model_sizes(model).keys()


@pytest.mark.parametrize("model", MODELS)
def test_a_network_is_one_of_its_named_sizes_unless_asked_otherwise(model: str) -> None:
    assert any(sizes.items() <= model_sizes(model).items() for sizes in named_sizes(model).values())


@pytest.mark.parametrize(("model", "size"), SIZES)
def test_the_page_says_what_a_named_size_costs(model: str, size: str) -> None:
    made = cost(model, **named_sizes(model)[size])
    assert rows()[model, size][1:3] == [f"{made.parameters:,}", f"{made.flops / 1e9:.3f}"]


def test_the_page_has_no_other_rows_and_tells_of_every_network_s_source() -> None:
    assert rows().keys() == set(SIZES)
    kept = PAGE.read_text(encoding="utf-8").partition("## What is kept")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z][a-z-]*)` \| ", kept, re.MULTILINE)) == set(MODELS)
