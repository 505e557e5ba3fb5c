"""One table on one HTML page that opens offline: no script, nothing fetched."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ukan import __version__
from ukan.paths import write_text


def write_table_page(
    path: Path, title: str, notes: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Write the page: the table, and below it what is to be known of it. The first column names the rows."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of datasets and variants are the user's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = {"title": title, "notes": notes, "columns": columns, "rows": rows, "version": __version__}
    write_text(path, environment.get_template("table.html.j2").render(page))
