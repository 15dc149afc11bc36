"""Parts of diffusers are built from plain values; what they do not know is refused with names."""

import subprocess
import sys

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.image_decoder.diffusion_config import (
    SDXL_SCHEDULER,
    SDXL_UNET,
    SDXL_VAE,
    build_scheduler,
    build_unet,
    build_vae,
    latent_shrink,
)


def test_the_published_parts_have_the_published_sizes():
    with torch.device("meta"):
        unet, vae = build_unet(SDXL_UNET), build_vae(SDXL_VAE)
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert latent_shrink(vae.config) == 8


def test_schedulers_by_name():
    euler = build_scheduler(SDXL_SCHEDULER)
    euler.set_timesteps(50)
    assert euler.timesteps[0] == 981  # leading spacing, offset 1
    dpm = build_scheduler({"name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True})
    assert dpm.config.beta_schedule == "scaled_linear"
    assert dpm.config.use_karras_sigmas


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "EulerDiscretScheduler"}, "EulerDiscreteScheduler"),
        ({}, "scheduler.name=None"),
        ({"name": "FlowMatchEulerDiscreteScheduler"}, "for other models.*DDIMScheduler"),
        ({"name": "CogVideoXDPMScheduler"}, "for other models"),
        ({"name": "DPMSolverSDEScheduler"}, "needs torch and torchsde"),
        ({"name": "DDIMScheduler", "beta_strat": 1}, "'beta_strat'.*beta_start"),
        ({"name": "DDIMScheduler", "beta_schedule": "cubic"}, "cannot be built"),
    ],
)
def test_schedulers_that_cannot_be_built(options, message):
    with pytest.raises(ConfigError, match=message):
        build_scheduler(options)


def test_other_parts_that_cannot_be_built():
    with pytest.raises(ConfigError, match=r"'block_out_chanels'.*block_out_channels"):
        build_unet({"block_out_chanels": (8, 8)})
    with pytest.raises(ConfigError, match="unet cannot be built"):
        build_unet({"block_out_channels": [8], "down_block_types": ["A", "B"]})
    with pytest.raises(ConfigError, match="vae was given 'size'"):
        build_vae({"size": 3})


def test_schedulers_are_built_on_the_host_even_without_memory():
    with torch.device("meta"):
        assert not build_scheduler(SDXL_SCHEDULER).sigmas.is_meta


def test_pipelines_come_in_silence():
    code = "from mllm_npu.models.image_decoder.diffusion_config import find_pipeline as find;"
    code += "print(find('StableDiffusionXLPipeline').__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == ("StableDiffusionXLPipeline", "")
