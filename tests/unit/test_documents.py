# SPDX-License-Identifier: Apache-2.0
"""What the documents promise of the files beside them: the tour is short, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import REPOSITORY

TOUR_FILES, TOUR_LINES = 8, 900
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """The anchors of a page: titles in small letters, words joined by hyphens, without other signs."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_tour_takes_ten_minutes() -> None:
    tour = (REPOSITORY / "CONTRIBUTING.md").read_text().split("## Ten-minute tour\n")[1].split("\n## ")[0]
    files = re.findall(r"^\d\. `([^`]+)`", tour, re.MULTILINE)
    assert len(files) == TOUR_FILES
    lines = sum(len((REPOSITORY / file).read_text().splitlines()) for file in files)
    assert lines <= TOUR_LINES


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in headings(file), target
