"""Declares `ccpd.dataset`. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

import pydantic

from lprf.api import Component, InputPath, Params, hookimpl

Subset = Literal["base", "db", "fn", "rotate", "tilt", "weather", "challenge", "blur", "green", "np"]


class CcpdParams(Params):
    """Parameters of `ccpd.dataset`."""

    root: InputPath | list[InputPath] = pydantic.Field(
        description="folder of CCPD2018, CCPD2019 or CCPD2020, of one of their subsets, or of any pictures with "
        "CCPD's names; or a list of such folders"
    )
    subsets: list[Subset] | None = pydantic.Field(
        None, min_length=1, description="only these subsets (the folders ccpd_…); all that are there by default"
    )
    split: InputPath | list[InputPath] | None = pydantic.Field(
        None,
        description="an official list, as splits/train.txt, or several: only the pictures they name, paths relative to "
        "the root. Papers measure on val.txt (of base) and test.txt (of the other subsets)",
    )
    release: Literal["auto", "2018", "2019", "2020", "unknown"] = pydantic.Field(
        "auto", description="the release the folder holds, for the record; auto goes by the folders' names"
    )


@hookimpl
def lprf_components() -> list[Component]:
    return [
        Component(
            name="dataset",
            kind="dataset",
            impl="lprf_ccpd.dataset:CcpdDataset",
            params=CcpdParams,
            summary="photos of CCPD2018, CCPD2019 or CCPD2020, labelled by their file names",
        )
    ]
