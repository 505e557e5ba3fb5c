"""A run folder is complete: it opens where training could not have run."""

from pathlib import Path

import torch

from ukan.models import build_network
from ukan.models.weights import save_weights
from ukan.paths import RunFolder
from ukan.plan import DataPlan, ModelPlan, Plan
from ukan.runs import Run


def test_a_network_trained_by_a_kernel_for_gpus_opens_on_a_cpu(tmp_path: Path) -> None:
    data = DataPlan(dataset="made", layout="folders", index_sha256="0", input_size=(32, 32))
    sizes = {"name": "km-unet", "widths": [8, 8, 8], "kan_layers": ["mlp"]}
    run = Run(RunFolder(tmp_path), Plan(name="made", data=data, model=ModelPlan(**sizes, scan_backend="triton")))
    torch.manual_seed(0)
    trained = build_network(Plan(name="made", data=data, model=ModelPlan(**sizes))).eval()
    run.folder.fold(0).weights.parent.mkdir(parents=True)
    save_weights(run.folder.fold(0).weights, trained, {})

    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run.network(0, torch.device("cpu"))(image), trained(image))
