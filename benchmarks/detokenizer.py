"""Does training a de-tokenizer work? Loss, and how close held-out pictures come, before and after.

    python benchmarks/detokenizer.py --json

Everything is small and from nothing: real scanned digits (scikit-learn) at 32 pixels, written as a
folder of pictures and converted by ``mllm-npu data pictures``; two vision encoders trained from
different seeds; a small autoencoder trained here. Four trainings of the SDXL-style decoder:

- ``full``: all of the UNet and the resampler, on the features of the first encoder;
- ``cross_attention``: the encoder is swapped for the second one, the resampler starts anew, and of
  the UNet only keys and values of the cross-attention are trained, as SEED-X did first;
- ``lora``: the same swap with low-rank updates of the UNet's attention;
- ``edit``: the decoder of ``full`` widened by a picture in view, on pairs of a spoilt and a clean
  scan; measured with and without that picture.

PSNR in dB and SSIM are means over held-out scans, drawn in 20 DPM++ steps from the EMA weights;
``before`` is the same model before its first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from result_line import ROOT, print_line
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mllm_npu.build import build_model, build_part
from mllm_npu.config import load_config
from mllm_npu.data.index import read_rows
from mllm_npu.evaluate.similarity import compare_pictures
from mllm_npu.inference.drawing import redraw
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.model_folder import load_artist
from mllm_npu.processing.image_transform import stretch, to_picture, to_tensor

SIZE = 32
OPTIONS = GenerationOptions(image_steps=20, guidance=1.0, image_guidance=1.0, seed=0)
CPU = torch.device("cpu")


def command(*arguments: str) -> None:
    """Run one command of the package; what it prints goes to stderr."""
    program = [sys.executable, "-m", "mllm_npu.cli", *arguments]
    subprocess.run(program, check=True, stdout=sys.stderr, cwd=ROOT)


def scans(folder: Path, split: str) -> list[Image.Image]:
    """The single scans of a split of the digits world at SIZE pixels."""
    rows = [
        row for path in sorted(folder.glob(f"caption/{split}-*.tar")) for row in read_rows(path)
    ]
    return [to_picture(stretch(row.picture(), SIZE)) for row in rows]


def spoil(picture: Image.Image, seed: int) -> Image.Image:
    """A scan with a bar across it and its colours turned round: what an edit would put right."""
    spoilt = to_picture(255 - to_tensor(picture))
    place = 4 + (seed * 7) % 20
    ImageDraw.Draw(spoilt).rectangle((place, 0, place + 5, SIZE), fill=(40, 90, 200))
    return spoilt


def write_folder(folder: Path, pictures: Sequence[Image.Image], *, pairs: bool) -> None:
    """Pictures as loose files; as pairs of a spoilt and a clean one if asked."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        if pairs:
            spoil(picture, number).save(folder / f"{number:05d}.source.png")
            picture.save(folder / f"{number:05d}.target.png")
            (folder / f"{number:05d}.json").write_text(json.dumps({"instruction": "clean"}))
        else:
            picture.save(folder / f"{number:05d}.png")


def train_autoencoder(
    pictures: Sequence[Image.Image], file: Path, steps: int
) -> tuple[float, float]:
    """Train the autoencoder of the configuration and save it under its names in the decoder.

    Returns:
        PSNR of what it gives back, in dB, and the deviation of its latents, over the pictures.
    """
    config = load_config("training", ["models=detokenizer_tiny", "processor=detokenizer"])
    torch.manual_seed(0)
    vae: Any = build_model(config).image_decoder.vae.requires_grad_(True).train()
    pixels = torch.stack([to_tensor(picture) for picture in pictures]).float() / 127.5 - 1
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = pixels[torch.randint(0, len(pixels), (48,))]
        posterior = vae.encode(batch).latent_dist
        given = vae.decode(posterior.sample(), return_dict=False)[0]
        loss = F.mse_loss(given, batch) + 1e-5 * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    vae.eval()
    with torch.no_grad():
        mode = vae.encode(pixels[:256]).latent_dist.mode()
        error = F.mse_loss(vae.decode(mode, return_dict=False)[0], pixels[:256])
    save_file(
        {f"image_decoder.vae.{name}": value for name, value in vae.state_dict().items()}, file
    )
    return float(10 * torch.log10(4 / error)), float(mode.std())


def closeness(
    model: Any, truth: Sequence[Image.Image], views: Sequence[Image.Image] | None = None
) -> dict[str, float]:
    """Mean PSNR and SSIM of pictures redrawn from their own features."""
    drawn = redraw(model.eval(), truth, OPTIONS, device=CPU, conditions=views)
    rows = [compare_pictures(a, b) for a, b in zip(truth, drawn, strict=True)]
    return {key: round(statistics.fmean(row[key] for row in rows), 3) for key in ("psnr", "ssim")}


def losses(run: Path) -> tuple[float, float]:
    """Mean training loss over the first and the last tenth of the steps."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
    tenth = max(1, len(values) // 10)
    return round(statistics.fmean(values[:tenth]), 4), round(statistics.fmean(values[-tenth:]), 4)


class Trainings:
    """The four trainings, each measured before and after.

    Args:
        folder: holds the data and gets the runs.
        truth: held-out pictures.
        steps: of ``full``; the others take half.
        deviation: of the latents, which are scaled to that of the noise.
    """

    def __init__(
        self, folder: Path, truth: Sequence[Image.Image], steps: int, deviation: float
    ) -> None:
        self.folder, self.truth, self.steps = folder, truth, steps
        self.common = [
            f"tokenizer.path={folder}/world/tokenizer",
            f"output_dir={folder}/runs",
            f"models.image_decoder.vae.scaling_factor={1 / deviation:.4f}",
        ]

    def run(
        self,
        name: str,
        weights: Sequence[Path],
        *overrides: str,
        experiment: str = "tiny",
        views: Sequence[Image.Image] | None = None,
        share: float = 0.5,
    ) -> dict[str, Any]:
        """Train once; gives losses, and closeness before and after."""
        steps = max(1, int(self.steps * share))
        settings = [
            f"experiment=detokenizer/{experiment}",
            *self.common,
            f"name={name}",
            f"dataset.sources.0.shards={self.folder}/shards/{'edit' if views else 'plain'}/*.tar",
            f"initialise_from=[{','.join(map(str, weights))}]",
            f"train.max_steps={steps}",
            *overrides,
        ]
        before = self._before(settings, views)
        begin = time.perf_counter()
        command("train", *settings)
        seconds = time.perf_counter() - begin
        run = next((self.folder / "runs" / name).iterdir())
        model, _ = load_artist(run / "model", device="cpu")
        first, last = losses(run)
        measured = {
            "steps": steps,
            "seconds": round(seconds, 1),
            "loss_first_tenth": first,
            "loss_last_tenth": last,
            "before": before,
            "after": closeness(model, self.truth, views),
        }
        if views:
            measured["after_without_the_view"] = closeness(model, self.truth)
        return measured

    def _before(
        self, settings: Sequence[str], views: Sequence[Image.Image] | None
    ) -> dict[str, float]:
        config = load_config("training", list(settings))
        torch.manual_seed(config.seed)
        model = build_model(config, list(config.initialise_from), config.fresh)
        if config.lora is not None:
            recipe = build_part(config.lora)
            recipe.apply(recipe.part_of(model))
        return closeness(model, self.truth, views)


def measure(folder: Path, steps: int, vision_steps: int, held_out: int) -> dict[str, Any]:
    """Data, encoders, autoencoder, and the four trainings."""
    world = folder / "world"
    command("data", "digits", "--out", str(world))
    for seed in (0, 1):
        command(
            "train",
            "experiment=digits/vision",
            f"world_dir={world}",
            f"output_dir={folder}/encoders",
            f"name=seed{seed}",
            f"seed={seed}",
            f"train.max_steps={vision_steps}",
        )
    train, truth = scans(world, "train"), scans(world, "test")[:held_out]
    for kind in ("plain", "edit"):
        write_folder(folder / "folders" / kind, train, pairs=kind == "edit")
        command("data", "pictures", f"{folder}/folders/{kind}", "--out", f"{folder}/shards/{kind}")
    vae = folder / "vae.safetensors"
    psnr_of_vae, deviation = train_autoencoder(train, vae, steps)
    runs = [folder / "encoders" / f"seed{seed}" / "vision" / "model" for seed in (0, 1)]
    encoders = [Path(f"{run}@vision_encoder") for run in runs]
    trainings = Trainings(folder, truth, steps, deviation)
    found = {"full": trainings.run("full", [encoders[0], vae], share=1.0)}
    full = folder / "runs" / "full" / "tiny" / "model"
    anew = ["fresh=[image_decoder.resampler,drawn_features]"]
    swapped = [drop_resampler(full, folder / "swapped.safetensors"), encoders[1]]
    found["cross_attention"] = trainings.run(
        "cross_attention", swapped, *anew, "objective=detokenizer"
    )
    found["lora"] = trainings.run(
        "lora", swapped, *anew, "objective=detokenizer_lora", "+lora=unet"
    )
    views = [spoil(picture, number) for number, picture in enumerate(truth)]
    found["edit"] = trainings.run("edit", [full], "fresh=[]", experiment="tiny_edit", views=views)
    return {**found, "vae_psnr": round(psnr_of_vae, 2), "held_out": len(truth)}


def drop_resampler(model: Path, file: Path) -> Path:
    """The weights of a decoder without its resampler, which starts anew on another encoder."""
    artist, _ = load_artist(model, device="cpu")
    kept: dict[str, Tensor] = {
        name: value.contiguous()
        for name, value in artist.state_dict().items()
        if name.startswith("image_decoder.") and ".resampler." not in name
    }
    save_file(kept, file)
    return file


def draw_sheet(folder: Path, out: Path, columns: int = 14) -> None:
    """Held-out scans, and what each training draws of them, row by row; twice as large."""
    truth = scans(folder / "world", "test")[:columns]
    views = [spoil(picture, number) for number, picture in enumerate(truth)]
    rows = [truth]
    for name in ("full", "cross_attention", "lora", "edit"):
        run = next((folder / "runs" / name).iterdir())
        artist, _ = load_artist(run / "model", device="cpu")
        if name == "edit":
            rows.append(views)
        given = views if name == "edit" else None
        rows.append(redraw(artist, truth, OPTIONS, device=CPU, conditions=given))
    edge = 2 * SIZE + 4
    sheet = Image.new("RGB", (columns * edge, len(rows) * edge), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            large = picture.resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST)
            sheet.paste(large, (column * edge + 2, row * edge + 2))
    sheet.save(out)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--vision-steps", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=180)
    parser.add_argument("--keep", type=Path, help="folder in which data and runs stay")
    parser.add_argument("--picture", type=Path, help="PNG of scans and what is drawn of them")
    parser.add_argument("--store", action="store_true", help="append to benchmarks/results")
    parser.add_argument("--json", action="store_true", help="JSON is all there is")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        measured = measure(folder, given.steps, given.vision_steps, given.held_out)
        if given.picture:
            draw_sheet(folder, given.picture)
    print_line("detokenizer", measured, store=given.store, file="detokenizer")


if __name__ == "__main__":
    main()
