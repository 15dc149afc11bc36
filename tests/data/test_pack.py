import pickle

from mllm_npu.data.pack import Pack, Pick, PlannedWindow


def test_a_pack_is_its_picks_and_what_they_cost():
    picks = (Pick(0, 3, 0, 1), Pick(1, 2, 0, 0))
    pack = Pack(picks, num_tokens=40, num_tiles=6)
    assert len(pack) == 2
    assert list(pack) == list(picks)
    assert pickle.loads(pickle.dumps(pack)) == pack
    assert pack != Pack(picks, num_tokens=41, num_tiles=6)


def test_a_window_tells_the_cost_of_each_pack():
    packs = [Pack((), num_tokens=n, num_tiles=2 * n) for n in (3, 1)]
    window = PlannedWindow(before=7, packs=packs)
    assert (window.tokens, window.tiles) == ([3, 1], [6, 2])
