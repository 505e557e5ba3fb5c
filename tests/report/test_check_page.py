"""The page of a check: complete in itself, true to the index, and safe whatever files and classes are called."""

import base64
import io
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukan.data.index import Index, index_folder
from ukan.report import check_page
from ukan.report.check_page import EXAMPLES, PAIRS, write_check_page
from ukan.report.pictures import TRUTH

Write = Callable[..., Path]
NASTY = "<script>alert(1)<'script'> & \"x\""
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, and the visible text; refuses tags left open or closed twice."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID and not (tag in ("path", "circle") and self.get_starttag_text().endswith("/>")):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def images(self) -> dict[str, np.ndarray]:
        """Pictures by their alt text."""
        return {
            str(image["alt"]): np.asarray(Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2]))))
            for image in self.all("img")
        }


def page_of(index: Index) -> Page:
    write_check_page(index, Path("check.html"))
    return Page(Path("check.html").read_text(encoding="utf-8"))


@pytest.fixture
def raw(write_dataset: Write) -> Path:
    return write_dataset(Path("raw"), count=14)


def test_it_fetches_nothing_and_runs_nothing(raw: Path) -> None:
    page = page_of(index_folder(raw))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(link["href"])[1:] for link in page.all("a")} <= anchors


def test_every_kind_of_problem_is_counted_and_every_problem_told_with_where_what_and_do(raw: Path) -> None:
    for i in range(3):
        (raw / f"images/c00{i}.png").write_bytes(b"")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(raw / "masks/c005.png")
    index = index_folder(raw)
    page = page_of(index)
    for kind, count in Counter(problem.kind for problem in index.problems).items():
        assert f"{kind} ({count})" in page.text
    for problem in index.problems:
        assert problem.where in page.text and problem.what in page.text and problem.do in page.text
    assert "3 errors" in page.text and "--skip-bad" in page.text


def test_more_problems_of_a_kind_than_fit_are_counted(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_page, "LISTED", 4)
    for i in range(9):
        (raw / f"images/c00{i}.png").write_bytes(b"")
    page = page_of(index_folder(raw))
    assert "unreadable image (9)" in page.text and "and 5 more in problems.csv" in page.text
    assert "images/c003.png" in page.text and "images/c004.png" not in page.text


def test_a_folder_without_a_usable_case_has_a_page_too(raw: Path) -> None:
    for path in (raw / "images").iterdir():
        path.write_bytes(b"")
    page = page_of(index_folder(raw))
    assert "No case can be used" in page.text and page.all("img") == []


def test_alike_pictures_stand_side_by_side_the_gravest_first(raw: Path) -> None:
    shutil.copy(raw / "images/c001.png", raw / "images/c004.png")
    with Image.open(raw / "images/c002.png") as file:
        noisy = np.asarray(file).astype(int) + np.random.default_rng(0).integers(-2, 3, (48, 64))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(raw / "images/c003.png")
    page = page_of(index_folder(raw))
    pairs = page.images()
    first, second = (np.asarray(Image.open(raw / f"images/c00{i}.png").resize((293, 220))) for i in (1, 2))
    assert list(pairs)[:4] == ["c001", "c004", "c002", "c003"]
    assert np.array_equal(pairs["c001"], pairs["c004"])
    for name, expected in (("c001", first), ("c002", second)):
        assert np.corrcoef(pairs[name][..., 0].ravel(), expected.ravel())[0, 1] > 0.98
    assert page.text.index("same picture twice, likeness 1.000") < page.text.index("near-duplicates, likeness")


def test_no_more_than_the_first_pairs_are_shown_and_the_rest_counted(raw: Path) -> None:
    for i in range(1, 14):
        shutil.copy(raw / "images/c000.png", raw / f"images/c{i:03}.png")
    index = index_folder(raw)
    assert len(index.pairs) == 14 * 13 // 2 > PAIRS
    page = page_of(index)
    assert len(page.all("img")) == 2 * PAIRS + EXAMPLES
    assert f"Shown are {PAIRS}; {len(index.pairs) - PAIRS} more" in page.text


def test_examples_spread_over_the_sizes_of_objects_and_are_outlined(raw: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(raw / "masks/c005.png")
    index = index_folder(raw)
    rising = sorted(index.cases, key=lambda case: case.foreground)
    shown = page_of(index).images()
    assert len(shown) == EXAMPLES
    assert [name.partition(",")[0] for name in (list(shown)[0], list(shown)[-1])] == ["c005", rising[-1].case]
    for name, image in shown.items():
        near = np.abs(image.astype(int) - TRUTH).max(axis=2) < 60
        assert near.any() == ("c005" not in name), f"the outline of {name}"
        assert f"{index.cases[[c.case for c in index.cases].index(name[:4])].foreground:.1%} inside" in name


def test_each_class_has_a_colour_with_a_legend(raw: Path) -> None:
    for path in (raw / "masks").iterdir():
        with Image.open(path) as file:
            mask = np.asarray(file) > 0
        Image.fromarray((mask * (1 + (np.arange(64) % 16 > 7))).astype(np.uint8)).save(path)
    index = index_folder(raw, label_values=[1, 2])
    page = page_of(index)
    assert "class_1" in page.text and "class_2" in page.text
    colours = re.findall(r'<b style="color: (#\w+)"', Path("check.html").read_text(encoding="utf-8"))
    assert len(set(colours)) == 2


def test_volumes_show_the_slice_with_most_of_the_object() -> None:
    nibabel = pytest.importorskip("nibabel")
    for folder in ("images", "masks"):
        (Path("raw") / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        mask = np.zeros((20, 24, 7), np.uint8)
        mask[8:10, 8:10, 1:6], mask[5:15, 6:18, 4] = 1, 1
        for folder, values in (("images", rng.integers(0, 900, mask.shape).astype(np.int16)), ("masks", mask)):
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 4, 1.0])), f"raw/{folder}/v{i}.nii")
    page = page_of(index_folder(Path("raw")))
    assert sorted(name.partition(", ")[2] for name in page.images()) == ["slice 5 of 7, 4.0% inside"] * 3


def test_the_plot_has_a_dot_for_each_size_and_marks_the_odd(raw: Path) -> None:
    for folder in ("images", "masks"):
        with Image.open(raw / folder / "c000.png") as file:
            file.resize((320, 240)).save(raw / folder / "c000.png")
    page = page_of(index_folder(raw))
    dots = page.all("circle")
    assert {dot["fill"] for dot in dots} == {"#3f7fcf", "#d97a1e"} and len(dots) == 2
    assert "64x48: 13" in page.text and "320x240: 1" in page.text


def test_no_name_of_a_users_is_taken_for_html(write_dataset: Write) -> None:
    raw = write_dataset(Path("raw"), count=4)
    for folder in ("images", "masks"):
        for i, name in enumerate((NASTY, f"{NASTY}2")):
            (raw / folder / f"c00{i}.png").rename(raw / folder / f"{name.replace('/', '')}.png")
    shutil.copy(raw / f"images/{NASTY}.png", raw / f"images/{NASTY}2.png")
    (raw / "images/c003.png").write_bytes(b"")
    page = page_of(index_folder(raw, dataset="a"))
    assert not page.all("script") and page.text.count(NASTY) >= 3


def test_an_image_gone_since_leaves_a_gap_with_the_reason(raw: Path) -> None:
    index = index_folder(raw)
    smallest = min(index.cases, key=lambda case: case.foreground)  # which is among the examples
    (raw / smallest.image).unlink()
    page = page_of(index)
    assert f"No picture: raw/{smallest.image}: no such file" in page.text and len(page.all("img")) == EXAMPLES - 1
