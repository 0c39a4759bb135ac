"""The pictures in docs/terminal.md are what the commands print. `MOODLINE_TEST_PICTURES=docs` writes them again."""

import io
import os
from pathlib import Path

from rich.console import Console

from moodline.services.report import palette_of, timeline_table
from moodline.services.report.document import TimelineDocument
from tests.support.api import nobody, smiling
from tests.support.timelines import make_document

PAGE = """# In the terminal

What `moodline analyze clip.mp4` and `moodline timeline` print; tests write these pictures. Numbers and words say all there is;
where there is colour and room, bars say it again.

80 columns, without colour (in a pipe, with `NO_COLOR=1`, on a plain terminal):

```text
{plain}```

120 columns, in colour:

![A table with a row for each second: time, leading emotion, shares, a coloured bar, faces and frames](img/terminal-120.svg)
"""


def film() -> TimelineDocument:
    buckets = [smiling(), smiling(share=0.6), smiling(share=0.4), nobody(), nobody(), smiling(share=0.3), smiling(share=0.9)]
    return make_document(buckets).model_copy(update={"stream": "talk [final].mp4"})


def plain() -> str:
    console = Console(width=80, color_system=None, file=io.StringIO(), record=True)
    console.print(timeline_table(film(), palette=palette_of(console.color_system), width=console.width))
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())


def without_fonts(svg: str) -> str:
    """Return a picture that fetches nothing: rich names fonts of other hosts."""
    begin, end = svg.index("@font-face"), svg.rindex("@font-face")
    end = svg.index("}", end) + 1
    return svg[:begin].rstrip() + "\n\n    " + svg[end:].lstrip()


def picture() -> str:
    console = Console(width=120, color_system="truecolor", force_terminal=True, file=io.StringIO(), record=True)
    console.print(timeline_table(film(), palette=palette_of(console.color_system), width=console.width))
    svg = without_fonts(console.export_svg(title="moodline analyze", unique_id="moodline"))
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines())


def test_the_pictures_are_what_is_printed(repo: Path) -> None:
    wanted = {"terminal.md": PAGE.format(plain=plain()), "img/terminal-120.svg": picture()}
    folder = os.environ.get("MOODLINE_TEST_PICTURES")
    for name, content in wanted.items():
        if folder:
            (repo / folder / name).write_text(content)
        assert (repo / "docs" / name).read_text() == content, f"{name} is out of date"


def test_eighty_columns_are_enough_and_every_row_has_its_numbers() -> None:
    lines = plain().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    rows = [line for line in lines if line.strip()[:2] == "0:"]
    assert len(rows) == 6
    assert all("%" in row or "no face" in row for row in rows)


def test_the_picture_fetches_nothing_from_elsewhere() -> None:
    assert "url(http" not in picture()
    assert picture().count("#F0E442".lower()) + picture().count("#F0E442") > 0
