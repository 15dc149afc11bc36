"""Drawing and changing pictures in a browser."""

from PIL import Image

GALLERY = "document.querySelectorAll('#{area}-gallery .grid-container img')"


def captions(page, area):
    return page.text(f"#{area}-gallery")


def wait_pictures(page, area, number):
    page.wait(f"{GALLERY.format(area=area)}.length === {number}")
    page.wait_idle(area)


def test_pictures_are_drawn_each_with_its_seed(visit):
    page = visit()
    page.go_to("draw")
    page.tab.fill("#draw-prompt textarea", "a house")
    page.tab.fill("#draw-number input[type=number]", "3")
    page.click("#draw-settings button")
    page.tab.fill("#draw-seed input", "5")
    page.tab.fill("#draw-steps input", "many")
    page.click("#draw-start")
    page.tab.wait_text("#draw-notice", "Steps: give a whole number from 1 to")
    page.tab.fill("#draw-steps input", "4")
    page.tab.fill("#draw-guidance input", "1.5")
    page.click("#draw-start")
    wait_pictures(page, "draw", 3)
    assert all(f"Seed {seed}" in captions(page, "draw") for seed in (5, 6, 7))
    assert page.text("#draw-notice").strip() == ""


def test_drawing_is_stopped_and_told_when_it_fails(visit, stage):
    page = visit()
    page.go_to("draw")
    page.click("#draw-start")
    page.tab.wait_text("#draw-notice", "Write something or add a picture first.")
    page.tab.fill("#draw-prompt textarea", "refuse")
    page.wait_idle("draw")
    page.click("#draw-start")
    page.tab.wait_text("#draw-notice", "The server says: This <i>cannot</i> be asked.")
    page.wait_idle("draw")
    page.tab.fill("#draw-prompt textarea", "slow")
    page.click("#draw-start")
    stage.worker.wait_until(lambda _: stage.running() == 1, "a beginning")
    page.click("#draw-stop")
    page.tab.wait_text("#draw-notice", "Stopped.")
    page.wait_idle("draw")
    stage.worker.wait_until(lambda _: stage.running() == 0, "an end")


def test_a_picture_is_changed_and_changed_again(visit, tmp_path):
    page = visit()
    page.go_to("edit")
    page.tab.fill("#edit-prompt textarea", "make it blue")
    page.click("#edit-start")
    page.tab.wait_text("#edit-notice", "Add a picture first.")
    page.wait_idle("edit")
    Image.new("RGB", (48, 48), "red").save(tmp_path / "red.png")
    page.tab.attach("#edit-picture input[type=file]", tmp_path / "red.png")
    page.wait("document.querySelector('#edit-picture img')?.naturalWidth === 48")
    page.click("#edit-start")
    wait_pictures(page, "edit", 1)
    page.click("#edit-go-on")  # the original is taken, not what is shown enlarged
    page.wait("document.querySelector('#edit-picture img')?.naturalWidth === 16")
    page.click("#edit-start")
    page.wait("document.querySelector('#edit-start').disabled")
    wait_pictures(page, "edit", 1)


def test_an_example_fills_the_field(visit):
    page = visit()
    page.go_to("draw")
    page.click("#draw-examples button")
    page.wait("document.querySelector('#draw-prompt textarea').value.includes('red house')")
