"""What every part of the page works with."""

from __future__ import annotations

from dataclasses import dataclass

from mllm_npu.serve.page.client import Controller
from mllm_npu.serve.page.models import Models
from mllm_npu.serve.page.pictures import PictureStore
from mllm_npu.serve.page.running import Running
from mllm_npu.serve.page.tabs import Tabs


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The things behind the page, shared by its languages.

    Args:
        controller: is asked.
        pictures: keeps files.
        tabs: keep what each browser tab has.
        running: what is being made.
        models: what may be asked.
    """

    controller: Controller
    pictures: PictureStore
    tabs: Tabs
    running: Running
    models: Models
