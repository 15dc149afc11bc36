"""The chat in a browser: what a person does, and what is then seen."""

import io
import json
import zipfile

from PIL import Image


def test_a_reply_streams_and_the_history_is_sent(visit):
    page = visit()
    page.ask("slow, please")
    first = page.wait_reply("w1 ")
    assert page.wait_reply("w4 ") != first
    page.click("#chat-stop")
    page.wait_idle()
    page.ask("hello")
    assert "alpha heard hello | 3 turns, 0 read, 0 drawn" in page.wait_reply("heard")
    page.wait_idle()
    assert page.tab.value("document.querySelector('#chat-box textarea').value") == ""


def test_stop_frees_the_place_at_the_worker_and_keeps_what_is_there(visit, stage):
    page = visit()
    page.ask("slow")
    page.wait_reply("w1 ")
    assert stage.running() == 1
    page.click("#chat-stop")
    page.wait_idle()
    stage.worker.wait_until(lambda _: stage.running() == 0, "an end of the reply")
    said = page.replies()
    assert said[0].startswith("w0 w1")
    assert said[-1] == "Stopped."
    assert "w99 " not in said[0]


def test_a_tab_that_is_closed_frees_its_place(visit, stage, chromium):
    page = visit()
    page.ask("slow")
    page.wait_reply("w1 ")
    assert stage.running() == 1
    page.tab.go("about:blank")
    stage.worker.wait_until(lambda _: stage.running() == 0, "an end of the reply")


def test_a_wait_says_how_many_are_ahead(visit):
    page = visit()
    page.ask("wait")
    page.wait_reply("3 ahead")
    page.wait_reply("It was my turn.")


def test_markup_is_text_whoever_wrote_it(visit):
    page = visit()
    typed = "markup <img src=x onerror='window.bad=3'><script>window.bad=4</script> &amp; **b**"
    page.ask(typed)
    said = page.wait_reply("strong")
    assert page.tab.value("window.bad ?? null") is None
    assert page.text("#chat-0 .user") == typed
    assert "<b>bold</b> <img src=x onerror='window.bad=1'> <script>window.bad=2</script>" in said
    assert page.tab.count("#chat-0 .bot .formatted img, #chat-0 .user .plain *") == 0
    assert page.tab.count("#chat-0 script") == 0
    assert page.text("#chat-0 .bot strong") == "strong"
    assert page.text("#chat-0 .bot code") == "a<b>c"
    assert page.tab.value("document.querySelector('#chat-0 .bot a').target") == "_blank"
    assert not [url for url in page.tab.requested if "192.0.2.1" in url]


def test_pictures_go_both_ways(visit, tmp_path):
    page = visit()
    paths = [tmp_path / "red.png", tmp_path / "wide.jpg"]
    Image.new("RGB", (20, 20), "red").save(paths[0])
    Image.new("RGB", (300, 100), "blue").save(paths[1])
    page.tab.attach("#chat-box input[type=file]", *paths)
    page.wait("document.querySelectorAll('#chat-box img').length === 2")
    page.ask("hello")
    page.wait_reply("alpha heard hello | 1 turns, 2 read, 0 drawn")
    page.wait_idle()
    assert page.tab.count("#chat-0 .user img") == 2
    page.ask("draw a house")
    page.wait_reply("done.")
    page.wait_idle()
    assert page.replies()[1:] == ["Here it is:", "", "done."]
    assert page.pictures() == 1
    shown = "document.querySelector('#chat-0 .bot img')"
    page.wait(f"{shown}.naturalWidth === 160")
    page.ask("hello again")
    page.wait_reply("alpha heard hello again | 5 turns, 2 read, 1 drawn")


def test_boxes_are_drawn_on_the_picture(visit, tmp_path):
    page = visit()
    Image.new("RGB", (400, 300), "white").save(tmp_path / "cat.png")
    page.tab.attach("#chat-box input[type=file]", tmp_path / "cat.png")
    page.wait("document.querySelectorAll('#chat-box img').length === 1")
    page.ask("where is the cat?")
    page.wait_reply("2 猫")
    page.wait_idle()
    assert page.pictures() == 1
    page.wait("document.querySelector('#chat-0 .bot img').naturalWidth === 400")
    page.click("#chat-undo")  # the question comes back with its picture
    page.wait("document.querySelectorAll('#chat-box img').length === 1")
    page.ask("hello")
    page.wait_reply("alpha heard hello | 1 turns, 1 read")


DROP = """(async () => {
  const canvas = document.createElement('canvas');
  const picture = await new Promise((done) => canvas.toBlob(done, 'image/png'));
  const data = new DataTransfer();
  data.items.add(new File([picture], 'dropped.png', {type: 'image/png'}));
  const how = {bubbles: true, cancelable: true};
  document.querySelector('#chat-box textarea')
    .dispatchEvent(new ClipboardEvent('paste', {...how, clipboardData: data}));
  for (const place of ['#chat-box textarea', '#chat-0'])
    document.querySelector(place)
      .dispatchEvent(new DragEvent('drop', {...how, dataTransfer: data}));
})()"""


def test_pictures_are_pasted_and_dropped_also_beside_the_field(visit):
    page = visit()
    page.tab.value(DROP)
    page.wait("document.querySelectorAll('#chat-box img').length === 3")
    page.ask("hello")
    page.wait_reply("alpha heard hello | 1 turns, 3 read")


def test_what_goes_wrong_is_seen(visit):
    page = visit()
    for question, words in (
        ("busy", "All workers are busy. Try again in a moment. The server says: Too many wait"),
        ("refuse", "The question was refused. The server says: This <i>cannot</i> be asked."),
        ("break", "The question was refused. The server says: It broke in the middle."),
        ("long", "The longest reply is reached."),
        ("nothing", "The reply is empty."),
    ):
        page.ask(question)
        page.wait_reply(words)
        page.wait_idle()
    assert "Half" in page.replies()
    page.ask("hello")  # what failed is not part of what is sent
    page.wait_reply("alpha heard hello | 5 turns")
    page.wait_idle()
    page.ask("")
    page.tab.wait_text("#chat-notice", "Write something or add a picture first.")


def test_settings_reach_the_model_and_nonsense_is_refused(visit):
    page = visit()
    page.click("#chat-settings button")
    page.tab.fill("#chat-temperature input", "warm")
    page.ask("hello")
    page.tab.wait_text("#chat-notice", "Temperature: give a number from 0, or nothing.")
    assert page.replies() == []
    page.tab.fill("#chat-temperature input", "0,5")
    page.tab.fill("#chat-top-p input", "0.9")
    page.tab.fill("#chat-max-tokens input", "7")
    page.tab.fill("#chat-seed input", "11")
    page.tab.focus("#chat-box textarea")
    page.tab.press()
    page.wait_reply("t=0.5 p=0.9 m=7 s=11")
    page.wait_idle()
    page.click("#chat-images label:nth-of-type(2)")
    page.ask("hello")
    page.wait("document.querySelectorAll('#chat-0 .bot img').length === 1")


def test_undo_retry_and_clear(visit):
    page = visit()
    page.ask("hello one")
    page.wait_reply("hello one")
    page.wait_idle()
    page.ask("hello two")
    page.wait_reply("hello two")
    page.wait_idle()
    # With another setting, so that the new reply is told from the old one.
    page.click("#chat-settings button")
    page.tab.fill("#chat-max-tokens input", "17")
    page.click("#chat-retry")
    page.wait_reply("hello two | 3 turns, 0 read, 0 drawn | t=0 p=1 m=17")
    page.wait("document.querySelectorAll('#chat-0 .bot').length === 2")
    page.wait_idle()
    page.click("#chat-undo")
    page.wait("document.querySelectorAll('#chat-0 .bot').length === 1")
    page.wait("document.querySelector('#chat-box textarea').value === 'hello two'")
    page.tab.focus("#chat-box textarea")
    page.tab.press()
    page.wait_reply("hello two | 3 turns")
    page.wait_idle()
    page.click("#chat-clear")
    page.wait("document.querySelectorAll('#chat-0 .message').length === 0")
    page.ask("hello three")
    page.wait_reply("hello three | 1 turns")


def test_the_chat_is_saved(visit, tmp_path):
    page = visit()
    page.tab.save_downloads(tmp_path)
    page.click("#chat-save-json")
    page.tab.wait_text("#chat-notice", "There is nothing to save yet.")
    page.ask("draw a house")
    page.wait_reply("done.")
    page.wait_idle()
    page.click("#chat-save-json")
    saved = json.loads(wait_for_file(page, tmp_path / "mllm-npu-chat.json"))
    assert saved["model"] == "alpha"
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
    kinds = [part["type"] for part in saved["messages"][1]["content"]]
    assert kinds == ["text", "image_url", "text"]
    page.click("#chat-save-zip")
    archive = zipfile.ZipFile(io.BytesIO(wait_for_file(page, tmp_path / "mllm-npu-chat.zip")))
    assert archive.namelist() == ["chat.md", "pictures/1.png"]
    assert "![](pictures/1.png)" in archive.read("chat.md").decode()


def wait_for_file(page, path):
    for _ in range(200):
        if path.exists() and path.stat().st_size:
            return path.read_bytes()
        page.tab.rest(0.1)
    raise AssertionError(f"{path.name} was not saved")
