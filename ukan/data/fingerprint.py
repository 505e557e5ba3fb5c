"""The fingerprint: what planning needs to know of a dataset. Whatever could be tuned to is taken outside the test part."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ukan.data.facts import Facts
from ukan.data.masks import Rule
from ukan.plan import Case, Fingerprint, Modality


def make_fingerprint(
    cases: Sequence[Case],
    facts: Sequence[Facts],
    rule: Rule,
    classes: tuple[str, ...],
    *,
    dataset: str,
    layout: str,
    modality: Modality,
    index_sha256: str,
    grouped_by: str,
    near_duplicates: int,
) -> Fingerprint:
    """`cases` and `facts` go together, one or more; classes as in DataPlan.

    Counts of files are of all cases; sizes, shares, intensities and groups of those outside an official test part, if there
    are any.
    """
    outside = [(case, fact) for case, fact in zip(cases, facts, strict=True) if case.split != "test"]
    inner = outside or list(zip(cases, facts, strict=True))
    shown = [(case, fact) for case, fact in inner if case.foreground > 0]
    areas = [c.foreground * c.width * c.height * c.slices / max(1, f.object_slices) for c, f in shown]
    inside = np.concatenate([fact.inside for _, fact in inner])
    spacings = [fact.geometry.spacing_mm for _, fact in inner if fact.geometry]
    deep = [fact for fact in facts if fact.deep]
    values = Counter(value for fact in facts for mask in fact.mask_values for value in mask)
    multilabel = any(case.classes for case in cases)
    masked = any(case.masks for case in cases)
    return Fingerprint(
        dataset=dataset,
        layout=layout,
        modality=modality,
        index_sha256=index_sha256,
        cases=len(cases),
        test=len(cases) - len(outside),
        empty=sum(case.foreground == 0 for case, _ in outside) if masked else 0,
        groups=len({case.group for case, _ in outside}),
        groups_with_object=len({case.group for case, _ in outside if case.foreground > 0}),
        grouped_by=grouped_by,
        labels=dict(sorted(Counter(case.label for case in cases).items())),
        slices=max(case.slices for case in cases),
        spacing_mm=_spacing(np.array(spacings)) if spacings else None,
        height=_min_median_max([case.height for case, _ in inner]),
        width=_min_median_max([case.width for case, _ in inner]),
        channels=max(fact.channels for fact in facts),
        colour=sum(fact.colour for fact in facts),
        deep=len(deep),
        intensity=_percentiles(inside) if len(inside) else None,
        hounsfield=sum(fact.hounsfield for fact in deep) > len(deep) / 2,
        lesion_share=_quantiles([case.foreground for case, _ in shown], 6),
        lesion_side_px=_quantiles(np.sqrt(areas), 1),
        mask_values={str(value): count for value, count in values.most_common(16)},
        mask_rule=rule.rule,
        label_values=rule.label_values,
        classes=classes,
        target="multiclass" if rule.rule == "labels" else "multilabel" if multilabel else "binary",
        near_duplicates=near_duplicates,
    )


def _min_median_max(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), int(np.median(values)), max(values)


def _quantiles(values: Sequence[float] | NDArray[np.float64], digits: int) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95)) if len(values) else (0, 0, 0)
    return round(float(low), digits), round(float(middle), digits), round(float(high), digits)


def _percentiles(values: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(values, (0.5, 99.5))
    return round(float(low), 4), round(float(high), 4)


def _spacing(spacings_N3: NDArray[np.float64]) -> tuple[float, float, float]:
    slices, rows, columns = np.median(spacings_N3, axis=0)
    return round(float(slices), 4), round(float(rows), 4), round(float(columns), 4)
