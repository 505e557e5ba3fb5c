"""Looking inside: maps, scores and functions are those of the networks, and the networks stay as they were."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.data.duplicates import save_thumbnails
from ukan.data.index import index_folder, save_index
from ukan.errors import DataError, UserError
from ukan.models import build_model
from ukan.models.ukan import UKAN
from ukan.models.weights import save_weights
from ukan.paths import RunFolder, write_text
from ukan.plan import DataPlan, ModelPlan, Plan, SplitPlan
from ukan.report.page import write_report
from ukan.runs import Run
from ukan.segment.evaluate import evaluate
from ukan.segment.explain import explain, watched

SIZES: dict[str, Any] = {"widths": [8, 8, 16]}
STAGES = ["block1", "block2", "dblock1", "dblock2"]
Write = Callable[..., Path]


def make_run(root: Path, data: Path, *, kind: str = "kan", held_out: int = 0, **settings: Any) -> RunFolder:
    """A run of two folds with untrained networks; fold k holds out every other case, from k + held_out on."""
    index = index_folder(data, dataset="toy")
    assert index.fingerprint and not index.errors
    read_as = index.fingerprint.model_dump(
        include={"mask_rule", "target", "classes", "label_values", "index_sha256", "layout"}
    )
    given = {"dataset": "toy", "input_size": (64, 64), "channels": 1} | read_as | settings
    model = ModelPlan(name="ukan", **SIZES, kan_layers=[kind] * 3)
    folder = RunFolder(root)
    Plan(name=root.name, data=DataPlan(**given), model=model, split=SplitPlan(folds=2)).save(folder.plan)
    save_index(folder.index, index.cases)
    save_thumbnails(folder.thumbnails, index.thumbnails)
    names = [case.case for case in index.cases]
    folds = [{"train": names[(1 + k + held_out) % 2 :: 2], "val": names[(k + held_out) % 2 :: 2]} for k in (0, 1)]
    write_text(folder.splits, json.dumps({"folds": folds}))
    write_text(folder.environment, json.dumps({"data_root": str(data)}))
    for fold in (0, 1):
        torch.manual_seed(fold)
        save_weights(folder.fold(fold).weights, build_model("ukan", given["channels"], 1, model.sizes), {})
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small figures of few functions."""
    monkeypatch.setattr("ukan.segment.figures._DPI", 40)
    monkeypatch.setattr("ukan.segment.explain.PLOTS", 4)


@pytest.fixture
def run(write_dataset: Write) -> RunFolder:
    return make_run(Path("runs/toy").resolve(), write_dataset(Path("data").resolve(), 8))


class Shows(nn.Module):
    """Its deepest map is bright where the image is."""

    deepest = "features"

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.features(torch.relu(x)).mean(1, keepdim=True) - 1


def rows_of(folder: RunFolder) -> list[dict[str, str]]:
    with folder.explain.plausibility.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_squares(root: Path, active: slice, count: int = 4) -> Path:
    """Images of the network's size, bright within columns `active` of a square that is the mask; each at another height."""
    for number in range(count):
        mask, image = np.zeros((2, 64, 64), np.uint8)
        mask[4 * number : 4 * number + 32, 16:48] = 255
        image[4 * number : 4 * number + 32, active] = 255
        for name, array in (("images", image), ("masks", mask)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / f"s{number}.png")
    return root


# Plausibility.


@pytest.mark.parametrize(("active", "iou"), [(slice(16, 48), 1.0), (slice(16, 32), 0.5), (slice(0, 16), 0.0)])
def test_a_made_map_has_the_plausibility_it_must(active: slice, iou: float, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(Path("runs/toy"), write_squares(Path("data").resolve(), active))
    monkeypatch.setattr(Run, "network", lambda run, fold, device: Shows().eval())
    about, _, _ = explain(folder.root, device="cpu")
    assert about["stages"]["features"]["iou"]["mean"] == iou
    assert [float(row["iou"]) for row in rows_of(folder)] == [iou] * 4
    assert about["stages"]["features"]["side"] == [64, 64] and not about["layers"]


def test_a_map_is_scored_at_the_image_s_own_size(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(Path("runs/toy"), write_squares(Path("data").resolve(), slice(16, 48)), input_size=(32, 96))
    monkeypatch.setattr(Run, "network", lambda run, fold, device: Shows().eval())
    about, _, _ = explain(folder.root, device="cpu", cases=1)
    assert about["stages"]["features"]["iou"]["mean"] > 0.9
    assert {float(row["object_share"]) for row in rows_of(folder)} == {0.25}


def test_the_slices_of_volumes_of_several_lengths_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    import nibabel

    for number, depth in enumerate((3, 5, 2, 4)):
        mask = np.zeros((64, 64, depth), np.uint8)
        mask[8 + number : 40, 16:48, number % depth] = 1
        for name, values in (("images", np.int16(900) * mask), ("masks", mask)):
            Path("data", name).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), f"data/{name}/v{number}.nii.gz")
    folder = make_run(Path("runs/toy"), Path("data").resolve(), window=(0, 900))
    monkeypatch.setattr(Run, "network", lambda run, fold, device: Shows().eval())
    about, place, _ = explain(folder.root, device="cpu", cases=4)
    assert about["stages"]["features"]["iou"]["mean"] == 1
    assert sorted(path.name for path in place.maps.iterdir()) == [f"v{k}.png" for k in range(4)]


def test_an_image_without_an_object_is_counted_and_not_scored(run: RunFolder, write_dataset: Write) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint8)).save("data/masks/c000.png")
    folder = make_run(Path("runs/empty"), Path("data").resolve())
    about, _, _ = explain(folder.root, device="cpu", cases=1)
    assert about["drawn"] == ["c000"]
    assert {stage["undefined"] for stage in about["stages"].values()} == {1}
    values = [float(row["iou"]) for row in rows_of(folder) if row["stage"] == "block1"]
    assert np.isnan(values).sum() == 1 and about["stages"]["block1"]["iou"]["mean"] == pytest.approx(
        np.nanmean(values), abs=1e-5
    )


def test_every_held_out_case_is_seen_once_by_the_fold_that_never_saw_it(run: RunFolder) -> None:
    about, place, failed = explain(run.root, device="cpu", cases=3)
    splits = json.loads(run.splits.read_text(encoding="utf-8"))["folds"]
    assert about["what"] == "held-out cases" and about["held_out"] and not failed and about["images"] == 8
    rows = rows_of(run)
    for stage in STAGES:
        of_stage = [(row["case"], int(row["fold"])) for row in rows if row["stage"] == stage]
        assert sorted(of_stage) == sorted((name, k) for k in (0, 1) for name in splits[k]["val"])
    assert len(rows) == 8 * len(STAGES)
    assert [about["stages"][stage]["side"] for stage in STAGES] == [[4, 4], [2, 2], [4, 4], [8, 8]]
    assert about["stages"]["block1"]["iou"]["interval95"] and len(about["drawn"]) == 3
    assert sorted(path.stem for path in place.maps.iterdir()) == about["drawn"]


# The networks.


def test_looking_leaves_the_network_and_what_it_gives_as_they_were() -> None:
    network = UKAN(1, 1, **SIZES).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        before = network(x)
        with watched(network, 5) as seen:
            within = network(x)
        after = network(x)
    assert torch.equal(before, within) and torch.equal(before, after)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [len(maps) for maps in seen.maps.values()] == [2] * 4  # after that, nothing more was collected
    assert seen.entering["block1.0.layer.fc1"].counts.values == 2 * 16 * 8
    assert [len(rows) for rows in seen.entering["dblock2.0.layer.fc3"].rows] == [5, 5]


def test_hooks_are_gone_after_an_error_as_well() -> None:
    network = UKAN(1, 1, **SIZES).eval()
    with pytest.raises(ValueError, match="multiples of 32"), watched(network, 5):
        network(torch.zeros(1, 1, 50, 50))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_map_is_the_mean_magnitude_of_what_the_stage_s_block_gives() -> None:
    network = UKAN(1, 1, **SIZES).eval()
    x = torch.randn(1, 1, 64, 96)
    kept: list[Tensor] = []
    network.block1[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.inference_mode(), watched(network) as seen:
        network(x)
    torch.testing.assert_close(seen.maps["block1"][0], kept[0][0].abs().mean(1).reshape(4, 6))
    assert not seen.entering


def test_inputs_and_edges_are_told_of_every_layer(run: RunFolder) -> None:
    about, place, _ = explain(run.root, device="cpu", cases=0)
    assert len(about["layers"]) == 12 and not about["drawn"] and not place.maps.exists()
    for name, layer in about["layers"].items():
        assert layer["grid"] == pytest.approx([-1, 1]) and layer["knots"] == pytest.approx([-2.2, 2.2])
        assert 0 <= layer["outside_knots"] <= layer["outside_grid"] < 1 and 0 < layer["spline_share"] < 1
        if not name.endswith("fc1"):
            assert layer["quantiles"]["0.001"] >= 0, "it comes out of a ReLU"
    tokens = {"block1": 16, "block2": 4, "dblock1": 16, "dblock2": 64}
    for stage, widths in zip(STAGES, (8, 16, 8, 8), strict=True):
        assert about["layers"][f"{stage}.0.layer.fc1"]["values"] == 4 * tokens[stage] * widths  # four cases of fold 0
    assert {edge["layer"] for edge in about["edges"]} == {f"{stage}.0.layer.fc1" for stage in STAGES}
    for path in (place.functions, place.inputs):
        assert min(Image.open(path).size) > 100


def test_one_layer_and_one_fold_can_be_chosen(run: RunFolder) -> None:
    about, _, _ = explain(run.root, device="cpu", cases=0, fold=1, layers=["dblock2.0.layer.fc3"])
    assert about["fold"] == 1 and about["folds"] == [1] and about["images"] == 4
    assert {edge["layer"] for edge in about["edges"]} == {"dblock2.0.layer.fc3"} and len(about["edges"]) == 4
    strengths = [edge["strength"] for edge in about["edges"]]
    assert strengths == sorted(strengths, reverse=True)


def test_a_mistyped_layer_is_answered_with_the_list(run: RunFolder) -> None:
    with pytest.raises(
        UserError, match=r"--layer fc1: no such KAN layer. There are: block1.0.layer.fc1, .*dblock2.0.layer.fc3"
    ):
        explain(run.root, device="cpu", layers=["fc1"])
    with pytest.raises(UserError, match="--fold 4: not finished in .*; finished are 0, 1"):
        explain(run.root, device="cpu", fold=4)


def test_a_network_without_kan_layers_has_maps_but_no_functions(run: RunFolder) -> None:
    mlp = make_run(Path("runs/mlp"), Path("data").resolve(), kind="mlp")
    about, place, _ = explain(mlp.root, device="cpu", cases=1)
    assert list(about["stages"]) == STAGES and about["layers"] == {} and about["edges"] == []
    assert place.plausibility.exists() and not place.functions.exists() and not place.inputs.exists()
    with pytest.raises(UserError, match="has no KAN layer"):
        explain(mlp.root, device="cpu", layers=["block1.0.layer.fc1"])


def test_a_network_with_nothing_to_look_at_is_refused_in_a_sentence(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "network", lambda run, fold, device: nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match="Conv2d has neither token stages nor a deepest map"):
        explain(run.root, device="cpu")


# A twin.


def test_a_twin_s_scores_stand_beside_case_by_case(run: RunFolder) -> None:
    twin = make_run(Path("runs/mlp").resolve(), Path("data").resolve(), kind="mlp")
    about, place, _ = explain(run.root, device="cpu", twin=twin.root, cases=1)
    rows = rows_of(run)
    assert {row["run"] for row in rows} == {"toy", "mlp"} and len(rows) == 2 * 8 * 4
    for stage in STAGES:
        ours, theirs = (
            {r["case"]: float(r["iou"]) for r in rows if (r["run"], r["stage"]) == (of, stage)} for of in ("toy", "mlp")
        )
        scores = about["stages"][stage]
        assert scores["twin"]["iou"]["mean"] == pytest.approx(np.mean(list(theirs.values())), abs=1e-5)
        assert scores["difference"]["iou"]["mean"] == pytest.approx(np.mean([ours[c] - theirs[c] for c in ours]), abs=1e-5)
    alone, _, _ = explain(twin.root, device="cpu", cases=0)
    assert alone["stages"]["block1"]["iou"] == about["stages"]["block1"]["twin"]["iou"]
    assert about["twin"]["run"] == "mlp" and place.root == run.root / "explain"


def test_a_run_beside_itself_differs_by_nothing(run: RunFolder) -> None:
    about, _, _ = explain(run.root, device="cpu", twin=run.root, cases=0)
    assert all(stage["difference"]["iou"] == {"mean": 0, "interval95": [0, 0]} for stage in about["stages"].values())


def test_a_twin_whose_cases_differ_is_refused_in_one_sentence(run: RunFolder) -> None:
    swapped = make_run(Path("runs/swapped"), Path("data").resolve(), held_out=1)
    with pytest.raises(
        UserError, match=r"--twin runs/swapped: its cases are not those of .*toy \(8 differ: c000, ...\); give"
    ):
        explain(run.root, device="cpu", twin=swapped.root)
    swapped.fold(1).weights.unlink()
    with pytest.raises(UserError, match="its cases are not those"):
        explain(run.root, device="cpu", twin=swapped.root)
    assert not run.explain.root.exists()


# Other images.


def test_a_plain_folder_gives_maps_and_functions_without_scores(run: RunFolder) -> None:
    shutil.copytree("data/images", "photos")
    Path("photos/broken.png").write_bytes(b"no picture")
    explain(run.root, device="cpu", cases=1)
    assert run.explain.plausibility.exists()
    about, place, failed = explain(run.root, Path("photos"), device="cpu", cases=2)
    assert len(failed) == 1 and "broken.png" in failed[0]
    assert about["images"] == 8 and not about["masks"] and "iou" not in about["stages"]["block1"]
    assert not place.plausibility.exists(), "nothing of an earlier look stays"
    assert place.functions.exists() and {path.stem for path in place.maps.iterdir()} == set(about["drawn"])
    with pytest.raises(DataError, match="no image could be read"):
        explain(run.root, Path("photos/broken.png"), device="cpu")


def test_another_dataset_is_scored_without_what_was_in_training(run: RunFolder, write_dataset: Write) -> None:
    write_dataset(Path("other"), 4, seed=7)
    shutil.copy("data/images/c002.png", "other/images/known.png")
    shutil.copy("data/masks/c002.png", "other/masks/known.png")
    about, _, _ = explain(run.root, Path("other"), device="cpu", cases=0, fold=1)
    assert about["left_out"] == ["known"] and about["images"] == 4 and about["what"] == "dataset other"
    assert {row["fold"] for row in rows_of(run)} == {"1"}


def test_the_command_says_what_it_found_and_exits_with_3_where_images_fail(run: RunFolder) -> None:
    done = CliRunner().invoke(app, ["explain", str(run.root), "--cases", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "held-out cases: 8 in 8 groups" in done.output and "dblock2" in done.output
    assert "inputs outside the grid" in done.output and "ukan report" in done.output
    shutil.copytree("data/images", "photos")
    Path("photos/broken.png").write_bytes(b"no picture")
    done = CliRunner().invoke(app, ["explain", str(run.root), "photos", "--cases", "0"])
    assert done.exit_code == 3 and "no plausibility" in done.output and "broken.png" in done.output


# The report.


def test_the_report_shows_what_is_of_its_weights_and_names_what_is_not(run: RunFolder) -> None:
    evaluate(run.root, device="cpu")
    page = write_report(run.root).read_text(encoding="utf-8")
    assert "Inside the network" not in page
    about, place, _ = explain(run.root, device="cpu", cases=2)
    page = write_report(run.root).read_text(encoding="utf-8")
    section = page[page.index('<section id="inside"') :].partition("</section>")[0]
    assert section.count('<img src="data:image/') == 4 and "<script" not in page  # two cases, inputs, functions
    assert f"{about['stages']['block1']['iou']['mean']:.3f}" in section and "Otsu" in section
    assert all(f"activation maps of {case}" in section for case in about["drawn"])
    record = json.loads(place.record.read_text(encoding="utf-8"))
    write_text(place.record, json.dumps(record | {"weights_sha256": {"0": "other"}}))
    page = write_report(run.root).read_text(encoding="utf-8")
    section = page[page.index('<section id="inside"') :].partition("</section>")[0]
    assert (
        "not of the networks that are in the run now; run `ukan explain" in section.replace("&#39;", "'")
        and "<img" not in section
    )
    place.functions.unlink()
    write_text(place.record, json.dumps(record))
    assert "functions.png" in write_report(run.root).read_text(encoding="utf-8")
