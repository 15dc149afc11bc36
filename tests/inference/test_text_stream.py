from mllm_npu.inference.text_stream import TextStream


def decode_bytes(ids):
    return bytes(ids).decode("utf-8", errors="replace")


def decode_words(ids):
    """As sentencepiece does: the space before the first word of a text is dropped."""
    return "".join([" one", " two", "s"][number] for number in ids).lstrip(" ")


def test_a_character_of_several_bytes_comes_out_whole():
    stream = TextStream(decode_bytes)
    pieces = [stream.push(byte) for byte in "a数é".encode()]
    assert pieces == ["a", "", "", "数", "", "é"]
    assert stream.flush() == ""


def test_broken_bytes_come_out_at_the_end():
    stream = TextStream(decode_bytes)
    assert stream.push("数".encode()[0]) == ""
    assert stream.flush() == "\N{REPLACEMENT CHARACTER}"


def test_broken_bytes_come_out_before_what_follows_them():
    stream = TextStream(decode_bytes)
    assert stream.push("数".encode()[0]) == ""
    assert stream.push(ord("x")) == "\N{REPLACEMENT CHARACTER}x"


def test_spaces_between_words_are_kept():
    stream = TextStream(decode_words)
    assert [stream.push(number) for number in (0, 1, 2, 0)] == ["one", " two", "s", " one"]


def test_the_pieces_add_up_to_the_whole_text():
    text = "Ein Bär 🐻 zählt 七 Äpfel. " * 20
    stream = TextStream(decode_bytes)
    assert "".join(stream.push(byte) for byte in text.encode()) + stream.flush() == text


def test_a_piece_costs_the_same_at_the_end_of_a_long_text():
    lengths = []

    def decode(ids):
        lengths.append(len(ids))
        return decode_bytes(ids)

    stream = TextStream(decode)
    for byte in b"x" * 500:
        stream.push(byte)
    assert max(lengths) <= 3
