"""The page of an exported model, as a reader uses it in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chromium import CONTROL, DOWN, ENTER, ESCAPE, HOME, LEFT, RIGHT, SHIFT, UP, Page, prefer, wait_until

import revgen
from revgen.language_model import LanguageModel

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def page_path(small_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small model."""
    return small_model.export(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def page(browser: Chrome, page_path: Path) -> Page:
    """The page of a small model, opened for the first time."""
    return Page(browser, page_path)


def test_the_page_continues_a_prompt(page: Page) -> None:
    page["prompt"].send_keys("the ")

    page.click("generate")

    assert page.text.startswith("the ") and len(page.text) > 4
    assert 1 <= len(page.tokens) <= 300
    assert page["stats"].text.startswith(f"{len(page.tokens)} token")


def test_the_page_generates_a_text_by_itself_unless_motion_is_reduced(browser: Chrome, page_path: Path) -> None:
    still = Page(browser, page_path)
    assert not still.tokens and still["hint"].is_displayed()

    prefer(browser, reduced_motion="no-preference")
    moving = Page(browser, page_path)
    wait_until(browser, "revgen.app.version")
    moving.wait()
    assert moving.tokens


def test_text_appears_while_it_is_sampled_and_can_be_stopped(page: Page) -> None:
    page.browser.execute_script(
        """const next = revgen.app.writer.next.bind(revgen.app.writer);
        revgen.app.writer.next = (options) => {  // a slow model that does not end the text
            for (const start = performance.now(); performance.now() - start < 5;);
            return {...next(options), done: false};
        }"""
    )
    page.fill(length=10000)
    page["prompt"].send_keys(CONTROL + ENTER)
    wait_until(page.browser, "document.querySelectorAll('.token').length > 3")

    assert page["generate"].text == "Stop"
    page["prompt"].send_keys(ESCAPE)
    page.wait()

    assert page["generate"].text == "Generate"
    assert 3 < len(page.tokens) < 10000
    assert page["status"].get_attribute("textContent") == f"Stopped: {len(page.tokens):,} new tokens"


def test_an_empty_field_means_the_default(page: Page) -> None:
    page.generate(length="")

    assert page["length"].get_attribute("value") == "300"


def test_a_seed_gives_the_same_text_again(page: Page) -> None:
    text, other = page.generate(seed=1), page.generate(seed=2)

    assert text != other
    assert page.generate(seed=1) == text


def test_the_button_takes_a_new_seed_if_nothing_has_changed(page: Page) -> None:
    text = page.generate(seed=1)

    page.click("generate")

    assert page["seed"].get_property("value") != "1"
    assert page.text != text


def test_an_error_of_the_model_is_shown(page: Page) -> None:
    page.browser.execute_script("revgen.model.start = () => { throw new Error('no memory') }; console.error = () => {}")

    page.click("generate")

    assert page["error"].text == "Something went wrong: no memory"
    assert page["generate"].text == "Generate"


def test_the_new_seed_button_changes_the_seed(page: Page) -> None:
    page.fill(seed="")

    page.click("new-seed")

    assert page["seed"].get_property("value")


def test_temperature_zero_ignores_the_seed(page: Page) -> None:
    page["temperature"].send_keys(HOME)

    assert page["temperature-value"].text == "0.00"
    assert page.generate(seed=1) == page.generate(seed=2)


def test_tokens_are_colored_by_their_probability_on_request(page: Page) -> None:
    page.generate()
    transparent = page.color("document.querySelector('.token')")
    assert not page["legend"].is_displayed()

    page.click("colors")

    bins = page.run("[...document.querySelectorAll('.token')].map(token => token.dataset.p)")
    probabilities = page.run("revgen.app.version.tokens.map(token => token.probability)")
    assert [int(b) for b in bins] == [sum(p >= bound for bound in (0.01, 0.05, 0.2, 0.5)) for p in probabilities]
    for b in set(bins):
        color = page.color(f"document.querySelector('.token[data-p=\"{b}\"]')")
        assert color != transparent
        assert color == page.color(f"document.querySelector('#legend [data-p=\"{b}\"]')")
    assert page["colors"].get_attribute("aria-pressed") == "true" and page["legend"].is_displayed()


def test_a_click_on_a_token_continues_with_an_alternative(page: Page) -> None:
    page.generate()
    page.run("window.getSelection().removeAllRanges()")
    before = page.tokens
    page.token(10).click()
    options = page.browser.find_elements("css selector", "#alternatives [role=option]")
    alternatives = page.run("revgen.app.version.tokens[10].alternatives")
    assert len(options) == len(alternatives) == 8
    choice = next(i for i, other in enumerate(alternatives) if other["text"] not in ("", before[10]))

    options[choice].click()
    page.wait()

    assert page.tokens[:11] == [*before[:10], alternatives[choice]["text"]]
    assert len(page.tokens) > 11 or page.run("revgen.app.version.tokens.at(-1).done")
    assert not page["alternatives"].is_displayed()


def test_alternatives_can_be_chosen_with_the_keyboard(page: Page) -> None:
    page.generate()
    page.browser.execute_script("document.getElementById('text').focus()")
    before = page.tokens

    page.press(HOME, RIGHT, RIGHT, RIGHT, LEFT)
    assert page.run("document.activeElement === document.querySelectorAll('.token')[2]")
    assert page.browser.switch_to.active_element.accessible_name.endswith("%")
    page.press(ENTER, ESCAPE)
    assert page.run("document.activeElement === document.querySelectorAll('.token')[2]")
    page.press(ENTER, DOWN, UP, HOME)
    top, sampled = page.run("[revgen.app.version.tokens[2].alternatives[0].text, revgen.app.version.tokens[2].text]")
    page.press(ENTER if top != sampled else "2")

    assert page.tokens[:2] == before[:2] and page.tokens[2] != before[2]
    assert page.run("document.activeElement === document.querySelectorAll('.token')[2]")


def test_the_list_of_alternatives_moves_to_the_next_token(page: Page) -> None:
    page.generate()
    page.token(10).click()
    title = page["alternatives-title"].text

    page["next"].click()
    assert page.run("revgen.app.openIndex") == 11 and page["alternatives-title"].text != title
    page["previous"].click()
    assert page.run("revgen.app.openIndex") == 10 and page["alternatives-title"].text == title
    page.press(LEFT)
    assert page.run("revgen.app.openIndex") == 9 and page["alternatives"].is_displayed()


def test_undo_and_redo_move_between_versions(page: Page) -> None:
    first, second = page.generate(seed=1), page.generate("and ", seed=2)
    assert not page["redo"].is_enabled()

    page.click("undo")
    assert page.text == first
    assert page["seed"].get_property("value") == "1" and page["prompt"].get_property("value") == "the "
    page.browser.execute_script("document.getElementById('text').focus()")
    page.press(CONTROL + SHIFT + "z")
    assert page.text == second
    page.press(CONTROL + "z")
    assert page.text == first and not page["undo"].is_enabled()
    page["redo"].click()
    page["prompt"].send_keys("x", CONTROL + "z")  # in a field, the browser takes back what was typed
    assert page.text == second and page["prompt"].get_property("value") == "and "


def test_a_text_continues_after_undo_as_it_did_before(page: Page) -> None:
    page.generate(length=20, seed=3)
    page.click("continue")
    long = page.text
    page.generate("and ", length=20, seed=4)

    page.click("undo")
    page.click("undo")
    page.click("continue")

    assert page.text == long and len(page.tokens) == 40


def test_copy_puts_the_whole_text_on_the_clipboard(page: Page) -> None:
    page.browser.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => { window.copied = text }}})"
    )
    text = page.generate()

    page.click("copy")

    assert page.run("window.copied") == text
    assert page["copy"].text == "Copied"


def test_the_switch_overrides_the_color_scheme_of_the_system(page: Page, page_path: Path) -> None:
    light = page.color("document.body")
    page.click("theme")
    dark = page.color("document.body")
    assert dark != light and page["theme"].get_attribute("aria-pressed") == "true"

    page.browser.refresh()
    assert page.color("document.body") == dark
    prefer(page.browser, color_scheme="dark", reduced_motion="reduce")
    page.browser.execute_script("localStorage.clear()")
    again = Page(page.browser, page_path)
    assert again.color("document.body") == dark
    again.click("theme")
    assert again.color("document.body") == light


def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    width = "document.documentElement.scrollWidth"

    page.generate("w" * 200, length=60)
    assert page.run(width) == 360
    page.click("colors")
    page.token(5).click()
    assert page.run(width) == 360 and page["alternatives"].is_displayed()
    page.press(ESCAPE)
    page.browser.execute_script("document.getElementById('about-open').click()")
    assert page.run(width) == 360 and page["about"].is_displayed()


def test_every_control_has_an_accessible_name(page: Page) -> None:
    page.generate()
    page.token(3).click()

    controls = page.browser.find_elements("css selector", "button, input, textarea, select, [tabindex='0'], dialog")

    assert len(controls) > 15
    assert all(control.accessible_name for control in controls if control.is_displayed())


def test_a_screen_reader_hears_one_sentence_at_the_start_and_one_at_the_end(page: Page) -> None:
    page.browser.execute_script(
        """window.announcements = [];
        new MutationObserver(() => announcements.push(document.getElementById('status').textContent))
            .observe(document.getElementById('status'), {childList: true, characterData: true, subtree: true})"""
    )

    page.generate(length=200)

    count = len(page.tokens)
    assert page.run("announcements") == ["Generating", f"Done: {count} new token{'s' if count != 1 else ''}"]


@pytest.mark.parametrize("prompt", ["<img src=x onerror=alert(1)>", "e\u0301te\u0301 ", "👩‍👩‍👧 ", "مرحبا "])
def test_any_prompt_is_shown_as_it_is(page: Page, prompt: str) -> None:
    assert page.generate(prompt, length=10).startswith(prompt)
    is_right_to_left = page.run("getComputedStyle(document.getElementById('text')).direction") == "rtl"
    assert is_right_to_left == (prompt == "مرحبا ")


def test_the_panel_tells_about_the_model(page: Page) -> None:
    page.click("about-open")

    assert "lstm" in page["about-facts"].text
    page.press(ESCAPE)
    assert not page["about"].is_displayed()


def test_a_label_can_be_chosen(browser: Chrome, tmp_path: Path, reviews: list[str]) -> None:
    model = revgen.create("textgenrnn-char", hidden_size=16)
    model.fit(["a" * 60, "b" * 60] * 10, labels=["first", "second"] * 10, epochs=8, progress=False)
    page = Page(browser, model.export(tmp_path / "page.html"))
    assert page["label-field"].is_displayed()

    page["label"].send_keys("second")
    page.generate("")

    assert page.run("revgen.app.version.request.label") == "second"
    assert page.text.count("b") > page.text.count("a")
