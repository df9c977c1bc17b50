"""Declares the components that come with the framework, `core.*`. Imports nothing heavy."""

from __future__ import annotations

from lprf.builtin import params
from lprf.component import Component
from lprf.hooks import hookimpl


@hookimpl
def lprf_components() -> list[Component]:
    return [
        *_datasets(),
    ]


def _datasets() -> list[Component]:
    return [
        Component(
            name="labelled-crops",
            kind="dataset",
            impl="lprf.builtin.datasets:labelled_crops",
            params=params.CropsDatasetParams,
            summary="ready-cut plates whose file names hold their texts",
        ),
        Component(
            name="table-dataset",
            kind="dataset",
            impl="lprf.builtin.datasets:table_dataset",
            params=params.TableDatasetParams,
            summary="pictures labelled by a table: CSV, YOLO or COCO",
        ),
        Component(
            name="photos",
            kind="dataset",
            impl="lprf.builtin.datasets:photos",
            params=params.PhotosDatasetParams,
            summary="photos without plates, for false alarms and as negatives",
        ),
    ]
