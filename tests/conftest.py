"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ("cn-pnet", "cn-onet", "cn-stn", "cn-lprnet")


def _shared(part: str) -> Path:
    base = Path(os.environ.get("LPRF_SHARED", ROOT.parent / "shared"))
    if not (base / part).is_dir():
        pytest.skip(f"reference data are not here: {base / part} (LPRF_SHARED names their folder)")
    return base / part


@pytest.fixture(scope="session")
def shared_seed() -> Path:
    """The seed's checkpoints, photos and golden outputs; skips where they are absent."""
    return _shared("seed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real plate images; skips where they are absent."""
    return _shared("data")


@pytest.fixture(scope="session")
def shipped_weights() -> Path:
    """The weights that ship."""
    assert len(list((ROOT / "weights").glob("cn-*.safetensors"))) == 4
    return ROOT / "weights"


@pytest.fixture(scope="session", autouse=True)
def _networks_of_the_recipes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Untrained networks under those names that the shipped recipes use and that no shipped weights have yet."""
    missing = [name for name in NETWORKS if not (ROOT / "weights" / f"{name}.safetensors").is_file()]
    if not missing:
        yield
        return
    from lprf import weights
    from lprf_lprnet.importers import ALPHABET
    from lprf_lprnet.net import LPRNet
    from lprf_mtcnn.nets import ONet, PNet, onet_metadata, pnet_metadata
    from lprf_stn.net import STN

    pnet, onet, stn, lprnet = PNet(), ONet(), STN(), LPRNet(len(ALPHABET) + 1)
    metadata = {
        "cn-pnet": pnet_metadata(pnet),
        "cn-onet": onet_metadata(onet),
        "cn-stn": {"architecture": "stn", **stn.metadata()},
        "cn-lprnet": {"architecture": "lprnet", **lprnet.metadata(), "alphabet": ALPHABET, "blank": len(ALPHABET)},
    }
    home = tmp_path_factory.mktemp("home")
    for name, net in zip(NETWORKS, (pnet, onet, stn, lprnet), strict=True):
        if name in missing:
            weights.save(home / "weights" / f"{name}.safetensors", net.state_dict(), metadata[name])
    before = os.environ.get("LPRF_HOME")
    os.environ["LPRF_HOME"] = str(home)
    yield
    if before is None:
        os.environ.pop("LPRF_HOME", None)
    else:
        os.environ["LPRF_HOME"] = before
