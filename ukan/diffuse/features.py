"""What images are compared by: features of a network, and what a distance of them may be called.

`inception`: torch-fidelity's Inception-v3, which alone gives a FID and a KID. `run:FOLDER` or `run:FOLDER:FOLD`: the encoder
of a segmentation run. It has seen this kind of image, needs no download, and a plain convolutional one (`unet`) resembles
Inception most; but its distances are its own, carry its name, and compare with no other network's. An encoder that was
trained on the real images of one side knows them: take one trained on other images, or two, to see whether ranks agree.
"""

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.cache import cache_root
from ukan.errors import DataError, UserError
from ukan.paths import written_whole
from ukan.plan import sha256_of
from ukan.runs import open_run
from ukan.runtime import installed_version, is_out_of_memory

if TYPE_CHECKING:
    import torch

BATCH = 32
_INCEPTION = "inception-v3-compat"
_LAYERS = ["2048", "logits_unbiased"]

Images = NDArray[np.uint8]
Tell = Callable[[int, int], None]


class Extracted(NamedTuple):
    features_NF: NDArray[np.float32]
    logits_NC: NDArray[np.float32] | None
    """Of ImageNet's classes; None where the network has none."""


@dataclass(frozen=True)
class Features:
    """A network that turns images into features."""

    name: str
    """inception, or run:FOLDER:FOLD."""
    label: str
    """Of whom the features are, in words."""
    distances: tuple[str, str]
    """What the kernel distance and the Frechet distance of these features are called."""
    weights_sha256: str
    identity: str
    """What the features depend on beside the images."""
    batches: Callable[[Images], Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]]
    """RGB images (N, H, W, 3) to features and logits of one batch after another."""
    trained_on: tuple[str, frozenset[str]] | None = None
    """The index and the cases it was trained on, where they are known."""

    def extract(self, images_NHWC: Images, on_progress: Tell | None = None) -> Extracted:
        """Features (N, F), and logits where there are any, of 8-bit RGB images of one size (N, H, W, 3).

        Raises DataError where features are no finite numbers.
        """
        features, logits, done = [], [], 0
        for some, classes in self.batches(images_NHWC):
            features.append(some.astype(np.float32))
            logits += [] if classes is None else [classes.astype(np.float32)]
            done += len(some)
            if on_progress:
                on_progress(done, len(images_NHWC))
        made = Extracted(np.concatenate(features), np.concatenate(logits) if logits else None)
        if not np.isfinite(made.features_NF).all():
            raise DataError(f"{self.name}: features that are no finite numbers; its weights are damaged or diverged")
        return made

    def cached(self, images_NHWC: Images, content_sha256: str, on_progress: Tell | None = None) -> NDArray[np.float32]:
        """Features (N, F) of images whose content has this hash, from the cache or made now."""
        path = cache_root() / "features" / f"{sha256_of([content_sha256, self.identity])[:32]}.npz"
        try:
            with np.load(path) as file:
                found: NDArray[np.float32] = file["features"]
            if len(found) == len(images_NHWC):
                return found
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # not there, or damaged: made anew
        features = self.extract(images_NHWC, on_progress).features_NF
        with written_whole(path) as temporary:
            np.savez(temporary, features=features)
        return features


def load_features(spec: str, weights: Path | None, device: "torch.device") -> Features:
    """`inception`, with the weights of a file or torch-fidelity's own, or `run:FOLDER[:FOLD]`, a segmentation run's encoder.

    Raises UserError where the spec is neither, where weights are at hand nowhere, or a run has no such fold or encoder;
    DataError where a file of weights is damaged or of another network.
    """
    if spec == "inception":
        return _inception(weights, device)
    if spec.startswith("run:"):
        return _encoder(spec, device)
    raise UserError(f"--features {spec}: unknown; take inception, run:FOLDER or run:FOLDER:FOLD")


def _inception(weights: Path | None, device: "torch.device") -> Features:
    import torch

    from ukan.models.weights import fetch_published

    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(f"torch-fidelity is missing ({error}); `pip install torch-fidelity`") from error
    otherwise = "give it with --weights FILE; --features run:FOLDER needs none"
    path = weights or fetch_published(URL_INCEPTION_V3, "Inception's weights", otherwise)
    sha256, state = _read_weights(path)
    buffer = io.BytesIO()  # torch-fidelity's own reading would execute code that a file holds: it is given these tensors
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = FeatureExtractorInceptionV3(_INCEPTION, _LAYERS, feature_extractor_weights_path=buffer)
    except (RuntimeError, TypeError, AttributeError) as error:
        name = URL_INCEPTION_V3.rpartition("/")[2]
        raise DataError(f"{path}: not the weights of torch-fidelity's Inception-v3; take {name}") from error
    network = network.to(device)

    def batches(images_NHWC: Images) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        for start in range(0, len(images_NHWC), BATCH):
            x = torch.from_numpy(images_NHWC[start : start + BATCH]).to(device).permute(0, 3, 1, 2)
            with torch.inference_mode():
                features, logits = network(x)
            yield features.cpu().numpy(), logits.cpu().numpy()

    return Features(
        name="inception",
        label="Inception-v3 of torch-fidelity (2048 features, ImageNet)",
        distances=("KID", "FID"),
        weights_sha256=sha256,
        identity=sha256_of([_INCEPTION, installed_version("torch-fidelity"), sha256, device.type]),
        batches=batches,
    )


def _read_weights(path: Path) -> tuple[str, dict[str, Any]]:
    """The hash of a file whose name must carry its beginning, and what it holds, read without executing code."""
    import hashlib
    import pickle

    import torch

    from ukan.models.weights import HASH_IN_NAME

    said = HASH_IN_NAME.search(path.name)
    if not said:
        raise UserError(
            f"{path}: no hash in its name to check it by; keep the name it was published under, such as "
            "weights-inception-2015-12-05-6726825d.pth"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; --weights takes a file of weights") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if not sha256.startswith(said[1]):
        raise DataError(
            f"{path}: its {len(content)} bytes hash to {sha256[:8]}..., its name says {said[1]}: cut off, or another file; "
            "fetch it again"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of unusual files: they are answered below
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, TypeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(f"{path}: not a file of weights alone, or damaged; fetch it again") from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: holds no weights by name; take a file saved from state_dict()")
    return sha256, state


def _encoder(spec: str, device: "torch.device") -> Features:
    from ukan.data.preprocess import prepare_stack
    from ukan.inference import predict_stacks

    folder, _, last = spec.removeprefix("run:").rpartition(":")
    named = bool(folder) and last.isdigit()
    run = open_run(Path(folder if named else spec.removeprefix("run:")))
    root, plan = run.folder.root, run.plan
    finished = run.finished_folds
    if not finished:
        raise UserError(f"{root}: no fold is finished, so there is no encoder; `ukan train` it first")
    fold = int(last) if named else finished[0]
    if fold not in finished:
        raise UserError(f"{spec}: fold {fold} is not finished; there are: {', '.join(map(str, finished))}")
    network = run.network(fold, device)
    if not isinstance(getattr(network, "deepest", None), str):
        raise UserError(f"{root}: the model {plan.model.name} names no deepest map to take features from; a unet does")
    if plan.data.channels not in (1, 3):
        raise UserError(f"{root}: takes {plan.data.channels} channels, and pictures have 1 or 3; give another run")

    def batches(images_NHWC: Images) -> Iterator[tuple[NDArray[np.float32], None]]:
        stacks = (prepare_stack(image[None], plan.data) for image in images_NHWC)
        for found in predict_stacks([network], stacks, plan, device):
            yield found.features_F[0][None], None

    name = f"run:{root.as_posix()}:{fold}"
    sha256 = run.weights_sha256()[str(fold)]
    told = run.knows_cases and run.folder.splits.exists()
    known = (plan.data.index_sha256, frozenset(run.splits[fold]["train"])) if told else None
    return Features(
        name=name,
        label=f"features of {name} ({plan.model.name}, {plan.data.dataset})",
        distances=(f"kernel distance ({name})", f"Frechet distance ({name})"),
        weights_sha256=sha256,
        identity=sha256_of([plan.model.name, plan.data.model_dump(mode="json"), sha256, device.type]),
        batches=batches,
        trained_on=known,
    )
