"""Detection by MTCNN: boxes are proposed, ONet judges and tightens them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lprf.boxes import clipped, decode, decode_corners, nms
from lprf.captured import Captured
from lprf.context import Context
from lprf.data import Detections, Filled, Frames
from lprf.errors import LprfError
from lprf.network import each
from lprf.sampling import sample_boxes
from lprf_mtcnn.fixed import FixedDetection
from lprf_mtcnn.nets import ONET_SIZE, ONet, for_bgr_bytes, load_onet, load_pnet
from lprf_mtcnn.params import CENTERNET_SCORES, DetectorParams
from lprf_mtcnn.proposers import SCREEN_SCORE, CenterNetProposer, Proposals, Proposer

CROPS, CUDA_CROPS = 64, 1024  # crops that ONet sees at a time: more take memory and, on a CPU, no less time


class Judge:
    """ONet over crops of boxes."""

    def __init__(self, net: ONet, device: torch.device, dtype: torch.dtype = torch.float32):
        self.net = for_bgr_bytes(net).to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    @torch.inference_mode()
    def __call__(self, images: Tensor, frame: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores [N], regressed boxes [N, 4] and corners [N, 4, 2] (None without that head) of boxes in frames."""
        scores, moved, corners = [], [], []
        chunk = CUDA_CROPS if images.device.type == "cuda" else CROPS
        chunks = boxes.split(chunk)
        crops = (
            sample_boxes(images, at, box, ONET_SIZE, "linear").to(self.dtype, memory_format=torch.channels_last)
            for at, box in zip(frame.split(chunk), chunks, strict=True)
        )
        given = each(self.net, crops, self.dtype) if len(boxes) else [self.net(crop) for crop in crops]
        for box, (logits, offsets, points) in zip(chunks, given, strict=True):
            logits = logits.float()
            scores.append((logits[:, 1] - logits[:, 0]).sigmoid())
            moved.append(decode(box, offsets.float()))
            if points is not None:
                corners.append(decode_corners(box, points.float()))
        return torch.cat(scores), torch.cat(moved), torch.cat(corners) if corners else None


class MtcnnDetector:
    """`mtcnn.detector`: plates in photos of one size, each photo on its own.

    On a GPU in buffers of fixed size, as a CUDA graph; elsewhere by `decide`.

    dropped: how many candidates so far went beyond `max_proposals` or, on a GPU, found no room in a buffer or were not
    settled when the rounds of a suppression were over.
    """

    def __init__(self, params: DetectorParams, context: Context):
        self.weights = pnet, onet = context.weights(params.pnet), context.weights(params.onet)
        centernet = pnet.info.architecture == "centernet"
        if centernet and params.thresholds is None:
            params = params.model_copy(update={"thresholds": CENTERNET_SCORES})
        self.params = params
        self.judge = Judge(load_onet(onet), context.device, context.dtype)
        self.propose: Proposer | CenterNetProposer
        if centernet:
            if params.screen is not None:
                raise LprfError(f"{context.node}: screen says where a PNet is to look, and {params.pnet} is none")
            self.propose = CenterNetProposer(
                pnet,
                context,
                min_plate=params.min_plate,
                threshold=params.scores[0],
                nms=params.nms[1],
                max_proposals=params.max_proposals,
            )
        else:
            screen = None
            if params.screen is not None and context.device.type == "cpu":
                screen = CenterNetProposer(
                    context.weights(params.screen), context, min_plate=params.min_plate, threshold=SCREEN_SCORE
                )
            self.propose = Proposer(load_pnet(pnet), params, context.device, context.dtype, screen=screen)
        self.fixed, self.captured = FixedDetection(self.propose, self.judge, params), Captured()

    @property
    def dropped(self) -> int:
        return self.propose.dropped

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Detections:
        """Find plates: boxes inside the frame, by frame, then from the best down."""
        nets = (self.propose.net, self.judge.net)
        of_torch = all(isinstance(net, nn.Module) for net in nets)
        if frames.images.device.type == "cuda" and of_torch:
            return self.find_fixed(frames)
        return decide(self.judge, frames, self.propose(frames.images), self.params)

    def find_fixed(self, frames: Frames) -> Detections:
        """The same in buffers of fixed size: how many rows are plates the device knows, and the host need not wait."""
        frame, boxes, scores, corners, told = self.captured(self.fixed, frames.images)
        assert frame is not None and boxes is not None and scores is not None and told is not None
        return Detections(frames, frame, boxes, scores, corners, filled=Filled(told, self._tell))

    def _tell(self, lost: int, unsettled: int) -> None:
        """Count and tell what a batch had no room for, when the host knows it."""
        self.propose.drop(
            lost + unsettled,
            f"{lost} candidates in a batch found no room and {unsettled} were not settled: plates may be missing "
            f"(max_proposals makes room; a higher first threshold takes less)",
        )


def decide(judge: Judge, frames: Frames, proposals: Proposals, params: DetectorParams) -> Detections:
    """The plates among proposals: boxes inside the frame, by frame, then from the best down."""
    images = frames.images
    frame, boxes, scores = proposals.frame, proposals.boxes, proposals.scores
    corners: Tensor | None = None
    for wanted in params.plate_scores:
        boxes, inside = clipped(boxes, images)
        frame = frame[inside]
        scores, boxes, corners = judge(images, frame, boxes[inside])
        boxes = boxes.round() if params.whole_pixels else boxes
        kept = (scores > wanted).nonzero().squeeze(1)
        kept = kept[nms(boxes[kept], scores[kept], frame[kept], params.nms[2], params.nms_onet)]
        frame, boxes, scores = frame[kept], boxes[kept], scores[kept]
        corners = None if corners is None else corners[kept]
    boxes, inside = clipped(boxes, images)
    corners = None if corners is None else corners[inside]
    return Detections(frames, frame[inside], boxes[inside], scores[inside], corners)
