"""What to expect of a prediction without a truth: a predicted Dice, and whether the image is unlike the training images.

Both are fitted when a run is evaluated, on cases that the networks never saw, and stored in the run folder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ukan.inference import Predicted, decide, predict_stacks
from ukan.metrics import familiarity
from ukan.metrics.quality import Curve, agreement, apply_curve, cross_fit, expected_dice, fit_curve, validate
from ukan.paths import written_whole
from ukan.plan import Plan
from ukan.runs import Run
from ukan.runtime import resolve_precision
from ukan.segment.summary import without_nan

if TYPE_CHECKING:
    import torch

    from ukan.data.cache import Prepared

TRAINING_CASES = 200
"""So many training cases of a fold, evenly chosen, say what is familiar to its network."""


@dataclass(frozen=True)
class Quality:
    """What `fit_quality` left in a run folder, for the networks in use."""

    curve: Curve
    familiar: list[tuple[familiarity.Model, float]]
    """For each network its model and the distance above which 5 % of held-out cases lie; empty where it has no features."""

    def of(self, said: Predicted, plan: Plan) -> dict[str, Any]:
        """Columns of predictions.csv.

        predicted_dice: from the mean probabilities, the mean over classes. agreement: the mean Dice of each network's mask
        with that of all, the mean over classes. distance: from the training images, in units of the threshold, the mean over
        networks; unfamiliar: 1 where it is above 1.
        """
        about: dict[str, Any] = {"predicted_dice": round(float(apply_curve(self.curve, [estimate(said, plan)])[0]), 4)}
        if len(said.members_MDKhw) > 1:
            consensus = decide(said.probabilities_DKhw, plan, axis=1)
            members = np.stack(said.members_MDKhw)
            by_class = [agreement(members[:, :, k], consensus[:, k]) for k in range(consensus.shape[1])]
            about["agreement"] = round(float(np.mean(by_class)), 4)
        pairs = list(zip(self.familiar, said.features_F, strict=False))
        if pairs:
            away = [float(familiarity.distance(model, f[None])[0]) / limit for (model, limit), f in pairs]
            about["distance"] = round(float(np.mean(away)), 4)
            about["unfamiliar"] = int(np.mean(away) > 1)
        return about


def estimate(said: Predicted, plan: Plan) -> float:
    """The Dice that probabilities expect of their own mask, the mean over classes."""
    classes = range(said.probabilities_DKhw.shape[1])
    return float(np.mean([expected_dice(said.probabilities_DKhw[:, k], plan.infer.threshold) for k in classes]))


def fit_quality(
    run: Run,
    rows: Sequence[dict[str, Any]],
    features: dict[tuple[str, str], NDArray[np.float32]],
    prepared: "Prepared",
    device: "torch.device",
) -> dict[str, Any]:
    """Fit on held-out scores (a row a case and class; features by part and case), write quality.npz, say how good it is."""
    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault((row["part"], row["case"]), []).append(row)
    estimates = np.array([np.mean([row["expected_dice"] for row in of_case]) for of_case in cases.values()])
    dices = np.array([np.mean([row["dice"] for row in of_case]) for of_case in cases.values()])
    parts = [part for part, _ in cases]
    groups = [of_case[0]["group"] for of_case in cases.values()]
    place = {group: i for i, group in enumerate(sorted(set(groups)))}
    folds = parts if len(set(parts)) > 1 else [str(place[group] % 5) for group in groups]
    stored: dict[str, Any] = {"weights": json.dumps(run.weights_sha256())}
    curve = fit_curve(estimates, dices)
    stored |= {"curve_estimate": curve["estimate"], "curve_dice": curve["dice"]}
    about: dict[str, Any] = {"cases": len(cases)}
    if len(set(folds)) > 1:
        predicted = cross_fit(estimates, dices, folds)
        about |= without_nan(validate(predicted, dices)._asdict())
        about["points"] = [[round(float(p), 4), round(float(d), 4)] for p, d in zip(predicted, dices, strict=True)]
    flagged, judged = list[float](), 0
    for fold in run.finished_folds:
        held_out = {case: f for (part, case), f in features.items() if part == f"fold_{fold}"}
        if len(held_out) < 2:
            continue
        model = familiarity.fit(_training_features(run, fold, prepared, device))
        distances = familiarity.distance(model, np.stack(list(held_out.values())))
        limit = familiarity.threshold(distances)
        if not limit > 0:  # every image gives the same features: nothing can be told
            continue
        judged += len(held_out)
        stored |= {f"fold_{fold}_{name}": values for name, values in model.items()} | {f"fold_{fold}_threshold": limit}
        by_case = dict(zip(cases, dices, strict=True))
        flagged += [by_case[f"fold_{fold}", case] for case, d in zip(held_out, distances, strict=True) if d > limit]
    about["unfamiliar"] = {"cases": len(flagged), "judged": judged, "dice": float(np.mean(flagged)) if flagged else None}
    about["mean_dice"] = float(np.mean(dices))
    with written_whole(run.folder.quality) as temporary, temporary.open("wb") as file:
        np.savez(file, **stored)
    return about


def load_quality(run: Run, folds: Sequence[int]) -> Quality | None:
    """For the networks of these folds; None where the run was not evaluated, or its weights are others since."""
    try:
        with np.load(run.folder.quality) as stored:
            if json.loads(str(stored["weights"])) != run.weights_sha256():
                return None
            curve = Curve(estimate=stored["curve_estimate"].tolist(), dice=stored["curve_dice"].tolist())
            familiar = [
                ({name: stored[f"fold_{k}_{name}"] for name in ("mean", "whitening")}, float(stored[f"fold_{k}_threshold"]))
                for k in folds
                if f"fold_{k}_mean" in stored
            ]
    except (OSError, ValueError, KeyError):
        return None
    return Quality(curve, familiar if len(familiar) == len(folds) else [])


def _training_features(run: Run, fold: int, prepared: "Prepared", device: "torch.device") -> NDArray[np.float32]:
    names = run.splits[fold]["train"]
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(len(names), TRAINING_CASES)).round().astype(int)]
    stacks = (prepared.images_NHWC[prepared.rows(name).start : prepared.rows(name).stop] for name in chosen)
    precision = resolve_precision(run.plan.train.precision, device)
    found = predict_stacks([run.network(fold, device)], stacks, run.plan, device, precision)
    return np.stack([said.features_F[0] for said in found])
