"""The page as a browser shows it: what a reader sees, hears and can do."""

import pytest

from tests.servers.browser import visit

pytestmark = pytest.mark.integration

AA = {False: 4.5, True: 3.0}  # contrast of text by whether it is large, level AA
# Colour of the text and of what lies behind it, for every visible text; after WCAG 2.2.
CONTRASTS = """
() => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const luminance = (rgb) => rgb
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const { rgb, a } = parse(getComputedStyle(e).backgroundColor);
      if (a === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [low, high] = [luminance(parse(style.color).rgb), luminance(behind(element))]
      .sort((a, b) => a - b);
    const px = parseFloat(style.fontSize);
    const isLarge = px >= 24 || (px >= 18.66 && style.fontWeight >= 700);
    found.push({ text: walker.currentNode.data.trim().slice(0, 40), px, isLarge,
                 ratio: (high + 0.05) / (low + 0.05) });
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def url(report):
    return (report[0] / "report.html").as_uri()


@pytest.fixture
def seen(browser, url):
    """The page on a laptop; whatever a test does there, no error and no request may come of it."""
    with visit(browser, url) as visited:
        yield visited
        assert visited.errors == []
        assert visited.refused == []


def open_everything(page):
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_is_whole_quiet_and_no_wider_than_the_window(browser, url, width, scheme):
    with visit(browser, url, width=width, scheme=scheme) as visited:
        page = visited.page
        open_everything(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        images = page.locator("img:visible")
        assert images.count() > 30
        assert images.evaluate_all("all => all.every((one) => one.complete && one.naturalWidth)")
        shown = page.locator("figure .scroll img:visible").evaluate_all(
            "all => all.map((one) => one.className)"
        )
        assert set(shown) == {f"on-{scheme}"}
        assert visited.errors == []
        assert visited.refused == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser, url, scheme):
    with visit(browser, url, scheme=scheme) as visited:
        open_everything(visited.page)
        texts = visited.page.evaluate(CONTRASTS)
        assert len(texts) > 300
        assert [one for one in texts if one["ratio"] < AA[one["isLarge"]]] == []
        assert min(one["px"] for one in texts) >= 12
        visited.page.locator("button.image").first.click()
        texts = visited.page.evaluate(CONTRASTS)
        assert [one for one in texts if one["ratio"] < AA[one["isLarge"]]] == []


def test_names_and_headings_reach_a_screen_reader(seen):
    page = seen.page
    assert page.locator("h1").count() == 1
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    unnamed = page.locator("button, a, [role=region], [role=group], dialog").evaluate_all(
        """all => all.filter((one) => {
             const id = one.getAttribute("aria-labelledby");
             const text = one.getAttribute("aria-label")
               ?? (id ? document.getElementById(id) && id : one.textContent);
             return !text || !text.trim();
           }).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    sections = page.locator("main section[aria-labelledby]")
    assert sections.count() >= 13
    for target in page.locator("nav a").evaluate_all("all => all.map((one) => one.hash)"):
        assert page.locator(f"h2{target}").count() == 1
    unreachable = page.locator(".scroll").evaluate_all(
        "all => all.filter((one) => one.scrollWidth > one.clientWidth && one.tabIndex !== 0).length"
    )
    assert unreachable == 0


def cells(table, column):
    rows = table.locator("tbody tr").evaluate_all(
        "(rows, column) => rows.map((row) => row.cells[column].dataset.value)", column
    )
    return [float(value) if value else None for value in rows]


def test_the_table_sorts_both_ways_by_mouse_and_by_keyboard(seen):
    table = seen.page.get_by_role("region", name="Scores by pathology").locator("table")
    heading = table.locator("thead th").nth(3)
    assert heading.get_attribute("aria-sort") is None
    heading.get_by_role("button", name="AUROC").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = cells(table, 3)
    assert values[-1] is None  # the undefined one
    assert values[:-1] == sorted(values[:-1], reverse=True)
    seen.page.keyboard.press("Enter")  # the button still has the focus
    assert heading.get_attribute("aria-sort") == "ascending"
    values = cells(table, 3)
    assert values[-1] is None
    assert values[:-1] == sorted(values[:-1])
    name = table.locator("thead th").nth(0)
    name.get_by_role("button").focus()
    seen.page.keyboard.press("Space")
    assert name.get_attribute("aria-sort") == "ascending"
    assert heading.get_attribute("aria-sort") is None
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
