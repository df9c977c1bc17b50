"""Declares the components that come with the framework, `core.*`. Imports nothing heavy."""

from __future__ import annotations

from lprf.builtin import io_params, params, rectify_params
from lprf.component import Component, Port
from lprf.hooks import hookimpl


@hookimpl
def lprf_components() -> list[Component]:
    return [
        *_sources(),
        *_sinks(),
        *_datasets(),
        *_transforms(),
        *_rectifiers(),
        *_evaluators(),
    ]


def _sources() -> list[Component]:
    return [
        Component(
            name="images",
            kind="source",
            impl="lprf.builtin.images:Images",
            params=io_params.ImagesParams,
            summary="photos: a file, a folder, a pattern or a list",
        ),
        Component(
            name="video",
            kind="source",
            impl="lprf.builtin.video:Video",
            params=io_params.VideoParams,
            summary="a video file, a camera or a network stream",
        ),
        Component(
            name="crops",
            kind="source",
            impl="lprf.builtin.crops:Crops",
            params=io_params.CropsParams,
            outputs={"detections": Port("Detections")},
            summary="pictures that are plates already",
        ),
    ]


def _sinks() -> list[Component]:
    found = {"readings": Port("Readings", optional=True), "detections": Port("Detections", optional=True)}
    return [
        Component(
            name="table",
            kind="sink",
            impl="lprf.builtin.table:Table",
            params=io_params.TableParams,
            inputs=found,
            summary="a table on standard output",
        ),
        Component(
            name="jsonl",
            kind="sink",
            impl="lprf.builtin.jsonl:Jsonl",
            params=io_params.JsonlParams,
            inputs=found,
            summary="a file of JSON lines, one a plate",
        ),
        Component(
            name="csv",
            kind="sink",
            impl="lprf.builtin.csv:Csv",
            params=io_params.CsvParams,
            inputs=found,
            summary="a table for spreadsheets, one row a plate",
        ),
        Component(
            name="annotate",
            kind="sink",
            impl="lprf.builtin.annotate:Annotate",
            params=io_params.AnnotateParams,
            inputs={"frames": Port("Frames"), **found},
            summary="plates drawn on pictures or on a video",
        ),
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


def _rectifiers() -> list[Component]:
    return [
        Component(
            name="crop",
            kind="rectifier",
            impl="lprf.builtin.rectify:Crop",
            params=rectify_params.CropParams,
            padded=True,
            summary="upright crops, resized",
        ),
        Component(
            name="perspective",
            kind="rectifier",
            impl="lprf.builtin.rectify:Perspective",
            params=rectify_params.CropParams,
            inputs={"detections": Port("Detections", features=frozenset({"corners"}))},
            summary="plates warped upright by their four corners",
        ),
    ]


def _transforms() -> list[Component]:
    one = {"dataset": Port("Dataset")}
    parts = ("train", "val", "test")
    return [
        Component(
            name="split",
            kind="transform",
            impl="lprf.builtin.transforms:Split",
            params=params.SplitParams,
            inputs=one,
            outputs={name: Port("Dataset") for name in parts},
            summary="train, val and test that share no plate, balanced by province",
        ),
        Component(
            name="concat",
            kind="transform",
            impl="lprf.builtin.transforms:Concat",
            inputs={"datasets": Port("Dataset", many=True)},
            outputs=one,
            summary="several datasets as one",
        ),
        Component(
            name="subset",
            kind="transform",
            impl="lprf.builtin.transforms:Subset",
            params=params.SubsetParams,
            inputs=one,
            outputs=one,
            summary="some of a dataset: by group, by attribute, or a number drawn at random",
        ),
        Component(
            name="crop-plates",
            kind="transform",
            impl="lprf.builtin.transforms:CropPlates",
            params=params.CropPlatesParams,
            inputs=one,
            outputs=one,
            summary="the labelled plates of photos, each as a picture of its own",
        ),
        Component(
            name="augment",
            kind="transform",
            impl="lprf.builtin.augment:Augmented",
            params=params.AugmentParams,
            inputs=one,
            outputs=one,
            summary="plate crops as bad cameras, weather and careless crops would have them",
        ),
        Component(
            name="audit",
            kind="transform",
            impl="lprf.builtin.audit:Audit",
            params=params.AuditParams,
            inputs={name: Port("Dataset", optional=True) for name in parts},
            outputs={name: Port("Dataset", optional=True) for name in parts},
            summary="what train, val and test hold and share; fails the run where they share anything",
        ),
    ]


def _evaluators() -> list[Component]:
    return [
        Component(
            name="evaluate",
            kind="evaluator",
            impl="lprf.builtin.evaluate:Evaluate",
            params=params.EvaluateParams,
            summary="how well an inference recipe finds and reads the plates of a dataset",
        ),
    ]
