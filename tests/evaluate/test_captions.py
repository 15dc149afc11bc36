import math

import pytest

from mllm_npu.evaluate.captions import bleu, caption_words, cider_d, count_bleu, rouge_l


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's dog isn't on the sofa.", "a man 's dog is n't on the sofa"),
        ("They’re using T-shirts, 3.5 ft. high", "they 're using t-shirts 3.5 ft. high"),
        ('It says "STOP", at 10:30 a.m...', "it says stop at 10:30 a.m."),
        ("the U.S. flag/cat -- wet", "the u.s. flag/cat wet"),
        ("He cannot; I'm gonna", "he can not i 'm gon na"),
        ("phone (or PDA) & #12 for $5.00", "phone -lrb- or pda -rrb- & # 12 for $ 5.00"),
        ("Dr. Smith's platform no. 5. No. No", "dr. smith 's platform no. 5 no no"),
        ("wouldn't've at 5 o'clock", "would n't 've at 5 o'clock"),
        ("wow!!! really?! yes!", "wow !!! really ?! yes"),
        ("a half-eaten sandwich,and\na drink .", "a half-eaten sandwich and a drink"),
        (" . ", ""),
    ],
)
def test_words_are_cut_as_the_penn_treebank_does(caption, words):
    """The words on the right are what Stanford's tokenizer gives."""
    assert " ".join(caption_words(caption)) == words


def corpus_bleu(*pairs):
    split = [(caption.split(), [each.split() for each in own]) for caption, own in pairs]
    return bleu([count_bleu(caption, own) for caption, own in split])


def test_bleu_counts_a_word_no_more_often_than_a_reference_does():
    """The example of the paper: seven times "the", of which a reference has two."""
    scores = corpus_bleu(
        ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"])
    )
    assert scores[0] == pytest.approx(2 / 7)
    assert scores[1:] == pytest.approx([0, 0, 0], abs=1e-4)


def test_bleu_makes_a_short_corpus_pay():
    scores = corpus_bleu(("a cat", ["a cat sits"]))
    assert scores[:2] == pytest.approx([math.exp(-0.5)] * 2)


def test_bleu_takes_the_reference_that_is_closest_in_length():
    """Three words: of references with two and four the shorter, so nothing is paid."""
    assert corpus_bleu(("a b c", ["a b", "a b c d"]))[0] == pytest.approx(1.0)
    assert corpus_bleu(("a b c", ["a b c d e", "a b c d"]))[0] == pytest.approx(math.exp(-1 / 3))


def test_bleu_is_of_the_whole_corpus_and_no_mean():
    scores = corpus_bleu(("a b c", ["a b c"]), ("x", ["y"]))
    assert scores[0] == pytest.approx(3 / 4)
    assert scores[1] == pytest.approx(math.sqrt(3 / 4))


def test_rouge_is_the_longest_common_subsequence():
    """Lin's sentences: three of four words in order, then two of four."""
    reference = [["police", "killed", "the", "gunman"]]
    assert rouge_l(["police", "kill", "the", "gunman"], reference) == pytest.approx(3 / 4)
    assert rouge_l(["the", "gunman", "kill", "police"], reference) == pytest.approx(2 / 4)


def test_rouge_takes_the_best_precision_and_the_best_recall():
    """Precision 2/3 with the first, recall 1 with the second; recall weighs 1.2 squared."""
    score = rouge_l(["a", "b", "c"], [["a", "b", "x", "y"], ["c"]])
    precision, recall, weight = 2 / 3, 1.0, 1.44
    assert score == pytest.approx((1 + weight) * precision * recall / (recall + weight * precision))


@pytest.mark.parametrize("caption", [[], ["z"]])
def test_nothing_in_common_scores_nothing(caption):
    references = [["a", "b"]]
    assert rouge_l(caption, references) == 0
    assert bleu([count_bleu(caption, references)]) == pytest.approx([0] * 4, abs=1e-3)
    assert cider_d([caption, ["c"]], [references, [["c"]]])[0] == 0


def test_cider_of_two_pictures_by_hand():
    """Words and pairs agree fully, longer n-grams do not exist: 10 * (1 + 1) / 4."""
    references = [[["a", "b"]], [["c", "d"]]]
    assert cider_d([["a", "b"], ["c", "d"]], references) == pytest.approx([5.0, 5.0])


def test_cider_of_a_half_right_caption_by_hand():
    """One of two words: cosine 1/2 of words, 0 of pairs."""
    references = [[["a", "b"]], [["c", "d"]]]
    assert cider_d([["a", "x"], ["c", "d"]], references)[0] == pytest.approx(1.25)


def test_cider_makes_another_length_pay():
    """Cosine of one word with two is 1 / sqrt 2; one word short costs exp(-1 / 72)."""
    references = [[["a", "b"]], [["c", "d"]]]
    wanted = 10 / 4 * math.sqrt(0.5) * math.exp(-1 / 72)
    assert cider_d([["a"], ["c", "d"]], references)[0] == pytest.approx(wanted)


def test_cider_does_not_count_what_every_picture_has():
    assert cider_d([["a"], ["a"]], [[["a"]], [["a"]]]) == [0.0, 0.0]
    assert cider_d([["a"]], [[["a"]]]) == [0.0]


def test_cider_clips_what_is_said_too_often():
    """Cosine (2, 1) with (1, 1) in equal weights: clipped 1 + 1, over sqrt(5 * 2)."""
    references = [[["a", "b"]], [["c", "d"]]]
    words = 2 / math.sqrt(10)
    pairs = 1 / math.sqrt(2)
    wanted = 10 / 4 * (words + pairs) * math.exp(-1 / 72)
    assert cider_d([["a", "b", "a"], ["c", "d"]], references)[0] == pytest.approx(wanted)


REFERENCES = [
    [
        "a brown dog runs over wet grass",
        "the dog is running in a garden",
        "a dog runs",
    ],
    [
        "two boats lie in a small harbour",
        "boats in the harbour",
        "a harbour with two red boats",
    ],
    [
        "a child paints a red house",
        "the child is painting",
        "a small child paints at a table",
    ],
]
CAPTIONS = [
    "a dog runs over the grass",
    "two red boats in a small harbour",
    "a small child paints a red dog",
]


def test_numbers_are_those_of_pycocoevalcap():
    """Computed once by its version 1.2 from the same words."""
    captions = [caption.split() for caption in CAPTIONS]
    references = [[each.split() for each in own] for own in REFERENCES]
    pairs = list(zip(captions, references, strict=True))
    assert bleu([count_bleu(caption, own) for caption, own in pairs]) == pytest.approx(
        [0.9036679531853115, 0.8413692501744582, 0.7564687763145079, 0.5788908919310971], rel=1e-12
    )
    assert [rouge_l(caption, own) for caption, own in pairs] == pytest.approx(
        [0.92424242, 0.85714286, 0.78005115], abs=1e-8
    )
    assert cider_d(captions, references) == pytest.approx(
        [2.7348859397983265, 3.51788571257426, 3.2895952899165377], rel=1e-12
    )
