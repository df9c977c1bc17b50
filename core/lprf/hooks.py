"""The hooks of LPRF: what a plugin may implement. This page is the plugin reference.

A plugin is a module, named by an entry point of the group `lprf`, with functions marked `@lprf.api.hookimpl`.
The entry point's name is the first part of its components' names: `mtcnn = "lprf_mtcnn.plugin"` gives
`mtcnn.detector`. The module is imported when a recipe names it, so it must not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lprf.component import Component
    from lprf.stages import Stage
    from lprf.stream import BatchInfo

hookspec = pluggy.HookspecMarker("lprf")
hookimpl = pluggy.HookimplMarker("lprf")


@hookspec
def lprf_components() -> list[Component]:  # type: ignore[empty-body]
    """Return the components this plugin provides."""


@hookspec
def lprf_recipes() -> Path | str:  # type: ignore[empty-body]
    """Return the folder of this plugin's recipes; a recipe `x.yaml` in it is addressed `plugin/x`."""


@hookspec
def lprf_stage_started(stage: Stage) -> None:
    """A stage of a training graph begins to run (cached stages do not)."""


@hookspec
def lprf_stage_finished(stage: Stage) -> None:
    """A stage has ended well; its outputs and metrics stand in its folder."""


@hookspec
def lprf_stage_failed(stage: Stage, error: BaseException) -> None:
    """A stage has raised `error`, Ctrl-C included; its last checkpoint stands in its folder."""


@hookspec
def lprf_batch_done(run: BatchInfo) -> None:
    """An inference graph has finished one batch; `run` tells its sources, times and counts."""
