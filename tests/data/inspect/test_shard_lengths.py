"""Lengths of a shard's samples are those that reading them gives."""

from random import Random

import numpy as np
import pytest

from mllm_npu.data.inspect.shard_lengths import ShardLengths
from mllm_npu.data.source import Source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.worlds.rendered import RenderedSource


@pytest.fixture
def processors(tokenizer, make_processor, processor):
    from mllm_npu.processing.chat_template import ChatTemplate

    template = ChatTemplate(
        system="you look", user_prefix="u: ", assistant_suffix="!", learn_suffix=True
    )
    return [processor, make_processor(tokenizer, chat_template=template)]


def test_every_form_has_the_length_it_is_read_with(batches, processors):
    for processor in processors:
        for source in batches.sources:
            for shard, size in enumerate(source.shard_sizes.tolist()):
                lengths = ShardLengths.of(source, shard, processor)
                first = int(source.shard_sizes[:shard].sum())
                check_shard(source, processor, lengths, range(first, first + size))


def check_shard(source, processor, lengths, samples):
    for place, sample in enumerate(samples):
        begin, end = lengths.table.first[place], lengths.table.first[place + 1]
        for form in range(end - begin):
            if lengths.tokens[begin + form] > processor.max_tokens:
                continue
            read = processor.encode(source.conversation(sample, Random(0), form))
            assert lengths.tokens[begin + form] == read.num_tokens
            assert lengths.targets[begin + form] == int((read.labels[1:] != -100).sum())
            assert lengths.tiles[begin + form] == len(read.tiles)


def test_targets_add_up_to_the_totals_that_weigh(batches, processors):
    for processor in processors:
        for source in batches.sources:
            table = source.forms(0, processor)
            counts = np.diff(table.first)
            share = np.concatenate(
                [np.full(count, 1 / count) for count in counts if count] or [np.empty(0)]
            )
            targets = table.targets(processor.length_rule)
            wanted = table.totals().num_targets(processor.length_rule)
            assert (targets * share).sum() == pytest.approx(wanted)


def test_rows_without_a_form_are_told(batches, processor):
    text = batches.sources[2]
    lengths = ShardLengths.of(text, 0, processor)
    keys = [text.row(number).key for number in range(len(text))]
    usable = lengths.has_form(np.arange(len(text)))
    assert [key for key, is_usable in zip(keys, usable, strict=True) if not is_usable] == ["empty"]


def test_sizes_are_those_of_all_stored_pictures(batches, processor):
    chat = batches.sources[1]
    lengths = ShardLengths.of(chat, 0, processor)
    sizes = lengths.picture_sizes(np.array([3, 5]), np.array([0, 0]))
    assert sizes.tolist() == [[48, 16], [20, 10]] * 2


def test_sizes_follow_the_samples_asked_for(batches, processor):
    caption = batches.sources[0]
    lengths = ShardLengths.of(caption, 1, processor)
    places = np.array([4, 0, 9])
    wanted = [list(caption.row(10 + place).picture_size()) for place in places]
    assert lengths.picture_sizes(places, np.zeros(3, dtype=np.int64)).tolist() == wanted


def test_no_samples_have_no_pictures(batches, processor):
    none = np.empty(0, dtype=np.int64)
    for source in batches.sources:
        assert ShardLengths.of(source, 0, processor).picture_sizes(none, none).shape == (0, 2)


def test_pictures_drawn_when_read_have_the_size_of_their_forms(scenes_folder, processor):
    source = RenderedSource(
        name="question",
        shards=str(scenes_folder / "question" / "train-*.tar"),
        task=Instruction(),
        picture_size=40,
    )
    lengths = ShardLengths.of(source, 0, processor)
    assert lengths.first_picture is None
    sizes = lengths.picture_sizes(np.array([0, 1]), np.array([0, 0]))
    assert sizes.tolist() == [[40, 40], [40, 40]]


def test_an_unreadable_picture_has_no_size(tmp_path, make_row, png, processor):
    from mllm_npu.data.shards import write_shard

    rows = [make_row("good", png=png(), txt=b"one"), make_row("bad", png=b"nothing", txt=b"two")]
    write_shard(tmp_path / "a.tar", rows)
    source = Source(name="a", shards=str(tmp_path / "a.tar"), task=Caption(min_resolution=1))
    lengths = ShardLengths.of(source, 0, processor)
    sizes = lengths.picture_sizes(np.array([0, 1]), np.array([0, 0]))
    assert sizes.tolist() == [[16, 16], [0, 0]]
