"""The attention resampler against the original's, masks and other grids included."""

from mllm_npu.models.projector.attention_resampler import AttentionResampler

GOLDEN = "a_attention_resampler"


def test_every_recorded_case(golden, take, deviation):
    tensors, meta = golden(GOLDEN)
    given = [(number, case) for number, case in enumerate(meta["cases"]) if case is not None]
    assert len(given) >= 5
    for number, case in given:
        args = case["args"]
        resampler = AttentionResampler(
            input_dim=args["kv_dim"] or args["embed_dim"],
            output_dim=args["embed_dim"],
            num_queries=args["grid_size"] ** 2,
            num_heads=args["num_heads"],
        )
        weights = take(tensors, f"w.{number}.")
        deviation(GOLDEN, resampler.pos_embed, weights["pos_embed"], atol=1e-6, what="positions")
        resampler.load_state_dict(weights)
        out = resampler(tensors[f"in.{number}.x"], tensors.get(f"in.{number}.mask"))
        deviation(GOLDEN, out.detach(), tensors[f"out.{number}.y"], atol=1e-6, what=str(args))
