"""Plan the pre-training of SEED-X on 64 NPUs, on a machine that has none.

    python examples/plan_64.py
    python examples/plan_64.py --with cluster=h100_64 parallel.recompute=full

Takes what `mllm-npu plan` takes; weights and data need not be there.
"""

import argparse

from mllm_npu.plan.cluster import GIB
from mllm_npu.plan.plan import Plan, make_plan

RUN = ["experiment=seedx/pretrain", "cluster=910b3_64"]


def main() -> None:
    """Dry-run one step of one rank, and reckon the rest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", default=RUN, help="what is planned")
    parser.add_argument("--with", nargs="*", default=[], dest="changes", help="settings beside it")
    parser.add_argument("--search", action="store_true", help="try other ways to spread it")
    asked = parser.parse_args()
    show(make_plan([*asked.run, *asked.changes], with_search=asked.search))


def show(plan: Plan) -> None:
    """Print memory, time and what would help."""
    fit, step = plan.outcome.fit, plan.outcome.step
    print(f"{plan.name} on {plan.cluster.ranks} x {plan.cluster.accelerator.name}")
    print(f"fits: {'yes' if fit.fits else 'no'}", end=", ")
    print(f"{fit.needed / GIB:.1f} of {fit.limit / GIB:.1f} GiB on a device, of which")
    for part, held in plan.outcome.traced.memory.at_peak.items():
        print(f"    {part}: {held / GIB:.1f} GiB")
    print(f"a step takes {step.seconds:.2f} s, limited by {step.limiting}:")
    for part, seconds in step.parts.items():
        print(f"    {part}: {seconds:.2f} s")
    print(f"{step.tokens_per_second:,.0f} tokens a second, MFU {step.mfu:.0%}")
    print(f"{plan.price.tokens / 1e9:.1f} billion tokens in {plan.price.days:.1f} days")
    for candidate in plan.candidates[:3]:
        print("or:", candidate.setting.words)
    if plan.advice is not None:
        print("advice:", plan.advice.text)


if __name__ == "__main__":
    main()
