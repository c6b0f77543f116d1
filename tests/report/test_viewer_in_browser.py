"""The viewer of images, by mouse and by keyboard."""

import pytest

from tests.servers.browser import visit

pytestmark = pytest.mark.integration


@pytest.fixture
def page(browser, report):
    with visit(browser, (report[0] / "report.html").as_uri(), height=800) as visited:
        yield visited.page
        assert visited.errors == []
        assert visited.refused == []


@pytest.fixture
def viewer(page):
    return page.get_by_role("dialog")


def sources(page, image):
    """The views of an image in the page."""
    return (
        page.locator("button.image")
        .nth(image)
        .locator("img")
        .evaluate_all("all => all.map((one) => one.src)")
    )


def shown(viewer):
    return viewer.locator(".stage img").get_attribute("src")


def test_by_mouse_it_opens_flips_zooms_moves_on_and_closes(page, viewer):
    first, second = sources(page, 0), sources(page, 1)
    assert len(set(first)) == 3
    assert not viewer.is_visible()
    page.locator("button.image").first.click()
    assert shown(viewer) == first[0]
    for view, name in enumerate(("Original", "Reconstruction", "Error")):
        button = viewer.get_by_role("button", name=name, exact=True)
        button.click()
        assert shown(viewer) == first[view]
        assert button.get_attribute("aria-pressed") == "true"
    pressed = viewer.locator("[aria-pressed=true]")
    assert pressed.all_inner_texts() == ["Error"]
    image = viewer.locator(".stage img")
    width = image.bounding_box()["width"]
    viewer.get_by_role("button", name="Zoom in").click()
    assert viewer.locator(".stage img").bounding_box()["width"] == pytest.approx(
        1.5 * width, rel=0.05
    )
    viewer.get_by_role("button", name="Next image").click()
    assert shown(viewer) == second[2]  # the same view of the next image
    viewer.get_by_role("button", name="Close").click()
    assert not viewer.is_visible()
    assert page.evaluate("document.activeElement.className") == "image"


def test_by_keyboard_it_opens_flips_zooms_moves_on_and_closes(page, viewer):
    first, last = sources(page, 0), sources(page, 2)
    page.locator("button.image").first.focus()
    page.keyboard.press("Enter")
    assert viewer.is_visible()
    for key, expected in (
        ("ArrowDown", first[1]),
        ("ArrowDown", first[2]),
        ("ArrowDown", first[0]),
        ("ArrowUp", first[2]),
        ("2", first[1]),
        ("ArrowLeft", last[1]),  # round the strip, which has three images
        ("ArrowRight", first[1]),
        ("9", first[1]),  # there is no such view
    ):
        page.keyboard.press(key)
        assert shown(viewer) == expected, key
    fit = viewer.get_by_role("button", name="Fit")
    for key, zoom in (
        ("+", "150 %"),
        ("+", "200 %"),
        ("-", "150 %"),
        ("0", "100 %"),
        ("-", "100 %"),
    ):
        page.keyboard.press(key)
        assert fit.inner_text() == zoom, key
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.evaluate("document.activeElement === document.querySelector('button.image')")


def test_what_changes_is_said_aloud(page, viewer):
    image = page.locator("button.image").nth(1)
    title = image.get_attribute("data-title")
    image.click()
    said = viewer.locator("[aria-live]")
    page.keyboard.press("ArrowDown")
    assert said.inner_text() == f"Reconstruction, image 2 of 3, {title}"
    page.keyboard.press("+")
    assert said.inner_text() == "Zoom 150 %"
    assert viewer.locator(".stage img").get_attribute("alt") == f"Reconstruction, {title}"
    assert viewer.get_by_role("img", name="Colour scale of the error maps").is_visible()


def test_a_zoomed_image_keeps_its_middle_and_is_dragged_by_the_mouse(page, viewer):
    page.locator("button.image").first.click()
    stage = viewer.locator(".stage")
    for _ in range(2):
        page.keyboard.press("+")
    middle = "one => (one.scrollLeft + one.clientWidth / 2) / one.scrollWidth"
    assert stage.evaluate(middle) == pytest.approx(0.5, abs=0.01)
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = stage.evaluate("one => [one.scrollLeft, one.scrollTop]")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 40, steps=4)
    page.mouse.up()
    after = stage.evaluate("one => [one.scrollLeft, one.scrollTop]")
    assert after == pytest.approx([before[0] + 60, before[1] + 40], abs=2)
    page.keyboard.press("2")  # a flip stays where it is
    assert stage.evaluate("one => [one.scrollLeft, one.scrollTop]") == pytest.approx(after, abs=1)


def test_on_a_telephone_the_viewer_fits_the_screen(browser, report):
    url = (report[0] / "report.html").as_uri()
    with visit(browser, url, width=400, height=800) as visited:
        visited.page.locator("button.image").first.click()
        box = visited.page.get_by_role("dialog").bounding_box()
        assert (box["x"], box["width"]) == (0, 400)
        assert box["height"] <= 800
        for name in ("Zoom in", "Next image", "Close"):
            control = visited.page.get_by_role("button", name=name).bounding_box()
            assert control["x"] + control["width"] <= 400
            assert control["height"] >= 24
