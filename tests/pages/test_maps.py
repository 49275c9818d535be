"""Maps: which image leads where, and that frames and pieces lie where the patches do."""

import re

import pytest

from headwater.errors import DataError
from headwater.pages.page import report
from headwater.pages.quilt import BLEED


def test_a_map_says_which_image_leads_where(mapped):
    (first, *_), page = map_cards(report([mapped()]).read_text()), report([mapped(name="again")]).read_text()
    assert page.count('class="map"') == 2
    assert re.findall(r"<b>([A-F])</b> (\d+) parts?", first) == [("A", "32"), ("B", "32")]
    assert "explains 35\N{NO-BREAK SPACE}% of it on average" in first  # (0.4 + 0.3)/2
    assert re.findall(r"<b>(.*?)</b><i", first)[:2] == ["40\N{NO-BREAK SPACE}%", "10\N{NO-BREAK SPACE}%"]
    assert first.count('class="behind"') == 64
    assert "means over" not in first and not struck(first)


def struck(card):
    """How many parts have a line through them."""
    return len(re.findall(r"l1 -1", re.findall(r'class="seam" d="(.*?)"', card)[0]))


def test_a_part_that_another_image_may_explain_better_is_struck_through_and_told(mapped):
    _, second = map_cards(report([mapped()]).read_text())
    assert struck(second) == 16 and second.count("Behind this part, as far as is known") == 16
    assert "not known in 16 of the 64 parts" in second
    assert re.findall(r"<b>([A-F])</b> (\d+) parts?", second) == [
        ("A", "32"),
        ("B", "16"),
    ]  # 3 leads on the right, 7 in the rest


def test_a_map_of_an_ensemble_says_that_it_is_of_the_first(mapped):
    page = report([mapped(models=[{"path": "a"}, {"path": "b"}, {"path": "c"}])]).read_text()
    assert all(
        "means over 3 models" in card and "of the first and its noise alone" in card
        for card in map_cards(page)
    )


def test_frames_and_pieces_stay_within_their_pictures(mapped):
    """Patches of the first and the last tiles reach over the edge."""
    for card in map_cards(report([mapped()]).read_text()):
        boxes = re.findall(r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"/>', card)
        boxes += [box.split() for box in re.findall(r'<svg x=.*?viewBox="(.*?)"', card)]
        assert len(boxes) == 64 * 3
        for x, y, width, height in ([float(number) for number in box] for box in boxes):
            assert min(x, y) >= 0 and min(width, height) > 0 and max(x + width, y + height) <= 8 * (1 + BLEED)


def test_a_patch_is_framed_where_it_lies(mapped):
    first = map_cards(report([mapped()]).read_text())[0]
    frames = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>', first)
    assert frames[2 * (3 * 8 + 5)] == (
        "2",
        "4",
        "3",
        "3",
    )  # row 3, column 5: 2 further down, 1 to the left, and then mirrored
    compared = re.findall(r'class="compared" style="(.*?)"', first)
    assert compared[3 * 8 + 5] == "left:50%;top:25%;width:37.5%;height:37.5%"
    assert compared[0] == "left:0%;top:0%;width:25%;height:25%"  # of 3 × 3 pixels, one beyond the edge


def map_cards(page):
    """What stands in each map."""
    return [part.split("</article>")[0] for part in page.split('class="map"')[1:]]


def test_a_map_of_other_pictures_is_refused(mapped, make):
    run, small = mapped(), make("small", n=5)
    (small / "regions.npz").write_bytes((run / "regions.npz").read_bytes())
    with pytest.raises(DataError, match="other pictures"):
        report([small])


def test_what_is_behind_a_part_is_shown_where_it_is_pointed_at(mapped, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report([mapped()]).as_uri())
    part = page.locator(".tile").nth(9)
    behind, sources = part.locator(".behind"), page.locator(".from").first
    assert not behind.is_visible() and sources.is_visible()
    part.hover()
    assert behind.is_visible() and not sources.is_visible()
    box, card = behind.bounding_box(), page.locator(".map").first.bounding_box()
    page.close()
    assert card["x"] <= box["x"] and box["x"] + box["width"] <= card["x"] + card["width"] + 1


def test_parts_are_one_stop_of_the_tab_key_and_arrow_keys_go_from_part_to_part(mapped, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report([mapped()]).as_uri())
    parts, sources = page.locator(".map").first.locator(".tile"), page.locator(".from").first
    page.locator(".map").first.locator("input").first.focus()
    assert parts.nth(0).locator(".behind").is_visible() and not sources.is_visible()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert parts.nth(9).locator(".behind").is_visible() and not parts.nth(0).locator(".behind").is_visible()
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.replace("\N{NO-BREAK SPACE}", " ") == "Row 2, column 2: image-007 40 %, image-003 10 %"
    page.keyboard.press("Tab")
    assert not parts.nth(9).locator(".behind").is_visible() and sources.is_visible()
    page.close()


def test_a_part_is_shown_where_it_is_tapped(mapped, browser):
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True, java_script_enabled=False
    )
    page = context.new_page()
    page.goto(report([mapped()]).as_uri())
    part = page.locator(".tile").nth(9)
    part.tap()
    assert part.locator(".behind").is_visible()
    context.close()
