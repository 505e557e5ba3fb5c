"""Distances of images: torch-fidelity's own numbers, known Gaussians, and floors that are floors."""

import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import fid_statistics_to_metric

from ukan.errors import DataError
from ukan.metrics.fidelity import (
    SUBSETS,
    frechet,
    frechet_by_singular_values,
    honest,
    inception_score,
    kernel_distances,
    paper,
    precision_recall,
)


class Tiny(FeatureExtractorBase):
    """Features of 8-bit images (B, 3, H, W): means of a 3 x 2 grid in each channel; of these, logits."""

    def __init__(self, name: str, features_list: list[str], **_: object) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "grid", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "grid"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        grid = torch.nn.functional.adaptive_avg_pool2d(x.float() / 64, (3, 2)).flatten(1)
        found = {"grid": grid, "logits": grid @ torch.linspace(-3, 3, 18 * 5).reshape(18, 5).sin()}
        return tuple(found[name] for name in self.features_list)


def write_images(folder: Path, count: int, seed: int, brightness: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    coarse = rng.integers(0, 150, (count, 3, 4, 3)) + brightness
    images = coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return images


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], np.ndarray, np.ndarray, np.ndarray]:
    """What torch-fidelity says of two folders; features of both and logits of the generated ones."""
    name, root = f"tiny-{uuid.uuid4().hex}", tmp_path_factory.mktemp("folders")
    torch_fidelity.register_feature_extractor(name, Tiny)
    generated, real = write_images(root / "fake", 60, 0, 0), write_images(root / "real", 44, 1, 12)
    said = torch_fidelity.calculate_metrics(
        input1=str(root / "fake"), input2=str(root / "real"), cuda=False, isc=True, fid=True, kid=True, prc=True,
        feature_extractor=name, kid_subset_size=22, isc_splits=10, save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    network = Tiny(name, ["grid", "logits"])
    (fake, logits), (held_out, _) = (
        [made.numpy() for made in network(torch.from_numpy(images).permute(0, 3, 1, 2))] for images in (generated, real)
    )
    return said, held_out, fake, logits


def test_the_honest_numbers_are_torch_fidelity_s_of_the_same_folders(both) -> None:
    said, real, fake, logits = both
    ours = honest(real, fake, logits)
    assert ours["kernel"]["subset_size"] == 22
    assert ours["kernel"]["mean"] == pytest.approx(said["kernel_inception_distance_mean"], rel=1e-5)
    assert ours["frechet"]["value"] == pytest.approx(said["frechet_inception_distance"], rel=1e-5)
    assert (ours["precision"], ours["recall"]) == pytest.approx((said["precision"], said["recall"]))
    assert ours["precision"] > 0 and 0 < ours["recall"] < 1


def test_the_paper_s_numbers_are_torch_fidelity_s_of_the_same_folders(both) -> None:
    said, real, fake, logits = both
    ours = paper(real, fake, logits)
    assert ours["frechet"]["value"] == pytest.approx(said["frechet_inception_distance"], rel=1e-5)
    assert ours["inception_score"]["mean"] == pytest.approx(said["inception_score_mean"], rel=1e-5)
    assert ours["inception_score"]["deviation"] == pytest.approx(said["inception_score_std"], rel=1e-4)
    assert ours["inception_score"]["splits"] == 10 and "kernel" not in ours


def test_the_kernel_distance_is_its_formula(both) -> None:
    _, real, fake, _ = both
    n = len(real)
    x, y = real.astype(float), fake[:n].astype(float)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = sum((kernel(side, side).sum() - np.trace(kernel(side, side))) / (n * (n - 1)) for side in (x, y))
    expected = within - 2 * kernel(x, y).mean()
    assert kernel_distances(real, fake[:n], n, 2) == pytest.approx([expected] * 2, rel=1e-3)


def statistics(rng: np.random.Generator, features: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]:
    """Two Gaussians whose covariances share their axes, and the distance that then has a closed form."""
    axes = np.linalg.qr(rng.standard_normal((features, features)))[0]
    deviations, means = rng.uniform(0.2, 2, (2, features)), rng.uniform(-2, 2, (2, features))
    sides = [{"mu": m, "sigma": axes * s**2 @ axes.T} for m, s in zip(means, deviations, strict=True)]
    return sides[0], sides[1], float(((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum())


def test_statistics_of_two_gaussians_have_their_closed_form() -> None:
    one, two, expected = statistics(np.random.default_rng(0), 16)
    assert fid_statistics_to_metric(one, two, False)["frechet_inception_distance"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("distance", [frechet, frechet_by_singular_values])
def test_samples_of_two_gaussians_come_to_their_closed_form(distance) -> None:
    rng = np.random.default_rng(1)
    one, two, expected = statistics(rng, 6)

    def exact(side: dict[str, np.ndarray]) -> np.ndarray:
        """A sample whose mean and covariance are the Gaussian's own."""
        drawn = rng.standard_normal((500, 6))
        drawn -= drawn.mean(0)
        drawn = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn.T))).T
        return drawn @ np.linalg.cholesky(side["sigma"]).T + side["mu"]

    assert distance(exact(one), exact(two)) == pytest.approx(expected, rel=1e-9)
    large = [rng.multivariate_normal(side["mu"], side["sigma"], 1_000_000) for side in (one, two)]
    assert distance(*large) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("real", "generated", "features"), [(300, 200, 8), (30, 25, 200), (4, 50, 100)])
def test_the_distance_by_singular_values_is_torch_fidelity_s(real: int, generated: int, features: int) -> None:
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((5, features))
    sides = [
        np.maximum(rng.standard_normal((n, 5)) @ mixing + 0.1 * rng.standard_normal((n, features)) + shift, 0)
        for n, shift in ((real, 0.0), (generated, 0.2))
    ]
    assert frechet_by_singular_values(*sides) == pytest.approx(frechet(*sides), rel=1e-5)
    assert frechet_by_singular_values(sides[0], sides[0]) == pytest.approx(0, abs=1e-9)


def test_images_of_the_same_kind_lie_on_the_floor_and_others_above_it() -> None:
    rng = np.random.default_rng(3)
    real, alike, other = (rng.standard_normal((200, 12)).astype(np.float32) for _ in range(3))
    same, apart = honest(real, alike), honest(real, other * 1.3 + 0.3)
    for name, of in (("kernel", lambda found: found["kernel"]), ("frechet", lambda found: found["frechet"]["same_n"])):
        low, high = of(same)["floor"]["interval95"]
        assert low < of(same)["mean"] < high, name
        assert of(apart)["interval95"][0] > of(apart)["floor"]["interval95"][1], name
    low, high = same["kernel"]["interval95"]
    assert low < 0 < high  # unbiased: few images make it noisy, not large


def test_a_frechet_distance_at_fewer_images_is_larger_which_is_why_it_has_a_floor() -> None:
    rng = np.random.default_rng(4)
    found = honest(*rng.standard_normal((2, 120, 20)))
    assert found["frechet"]["same_n"]["n"] == 60
    assert found["frechet"]["same_n"]["interval95"][0] > found["frechet"]["value"] > 1


def test_subsets_fit_the_smaller_side_and_differ() -> None:
    rng = np.random.default_rng(5)
    found = honest(rng.standard_normal((9, 3)), rng.standard_normal((40, 3)))
    assert found["kernel"]["subset_size"] == found["frechet"]["same_n"]["n"] == 4
    assert found["kernel"]["interval95"][0] < found["kernel"]["mean"] < found["kernel"]["interval95"][1]
    assert len(set(kernel_distances(rng.standard_normal((9, 3)), rng.standard_normal((40, 3)), 4))) == SUBSETS


def test_the_same_features_give_the_same_numbers() -> None:
    real, fake = np.random.default_rng(6).standard_normal((2, 30, 4))
    assert honest(real, fake) == honest(real, fake)


def test_precision_falls_for_invented_images_and_recall_for_missed_ones() -> None:
    rng = np.random.default_rng(7)
    near, far = rng.standard_normal((60, 4)), rng.standard_normal((60, 4)) + 50
    invented = precision_recall(near, np.concatenate([near + 1e-3, far]))
    missed = precision_recall(np.concatenate([near, far]), near + 1e-3)
    assert invented == pytest.approx({"precision": 0.5, "recall": 1.0})
    assert missed == pytest.approx({"precision": 1.0, "recall": 0.5})


def test_an_inception_score_is_the_number_of_classes_at_most_and_its_parts_fit_the_images() -> None:
    certain = np.eye(5, dtype=np.float32)[np.arange(250) % 5] * 100
    assert inception_score(certain, 1)["mean"] == pytest.approx(5)
    rng = np.random.default_rng(8)
    real, fake = rng.standard_normal((2, 250, 3))
    assert honest(real, fake, certain)["inception_score"]["splits"] == 2
    assert honest(real[:20], fake[:20], certain[:20])["inception_score"]["splits"] == 1
    assert paper(real, fake, certain)["inception_score"]["splits"] == 10
    assert paper(real, fake[:9], certain[:9])["inception_score"] is None
    assert honest(real, fake)["inception_score"] is None


@pytest.mark.parametrize("protocol", [honest, paper])
def test_fewer_than_four_images_are_refused_by_their_side(protocol) -> None:
    with pytest.raises(DataError, match=r"^3 generated image\(s\): at least 4"):
        protocol(np.zeros((9, 2)), np.zeros((3, 2)))
