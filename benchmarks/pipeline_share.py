"""What loading, augmenting and writing cost beside the network, as shares of a training epoch and of a prediction.

    python benchmarks/pipeline_share.py [--size 256] [--steps 6] [--images 16]

U-KAN base, batch 8, made-up ultrasound of 440x560 pixels (about BUSI as published), one process, the parts timed in turn
on the same batches; medians.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ukan.data.batches import StepSampler, TrainingSamples, training_batches
from ukan.data.cache import Prepared
from ukan.data.phantoms import make_ultrasound
from ukan.data.preprocess import prepare_stack, prepare_truth, read_stack, to_input
from ukan.imaging import write_mask
from ukan.inference import decide, full_size, predict_stacks
from ukan.losses import combined_loss
from ukan.models.ukan import UKAN
from ukan.plan import AugmentPlan, DataPlan, InferPlan, Plan, TrainPlan
from ukan.runtime import usable_cores
from ukan.training.optim import make_optimizer


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--images", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    # Every augmentation that the planner may choose, on.
    augment = AugmentPlan(hflip=0.5, vflip=0.5, affine=0.5, intensity=0.5, gamma=0.2)
    data = DataPlan(dataset="x", layout="x", index_sha256="0", channels=1, input_size=(arguments.size, arguments.size))
    plan = Plan(name="x", data=data, train=TrainPlan(augment=augment), infer=InferPlan(batch_size=8))
    pairs = [make_ultrasound(np.random.default_rng([0, i]), 440, 560) for i in range(arguments.images)]
    names = [str(i) for i in range(len(pairs))]

    def united(masks: list[np.ndarray]) -> np.ndarray:
        return np.any(masks, axis=0) if masks else np.zeros((440, 560), bool)

    images = np.concatenate([prepare_stack(image[None, ..., None], data) for image, _ in pairs])
    masks = np.concatenate([prepare_truth(united(found)[None, None], data) for _, found in pairs])
    model = UKAN(1, 1).to(memory_format=torch.channels_last)
    optimizer, loss = make_optimizer(model, plan.train), combined_loss({"bce": 0.5, "dice": 1.0}, "binary")

    def step(batch: object) -> None:
        x = to_input(batch.images_BHWC, data).contiguous(memory_format=torch.channels_last)  # type: ignore[attr-defined]
        optimizer.zero_grad(set_to_none=True)
        loss(model(x), batch.targets_BMHW).backward()  # type: ignore[attr-defined]
        optimizer.step()

    samples = TrainingSamples(Prepared(names, [1] * len(names), images, masks), names, plan.train, data)
    batches = training_batches(samples, StepSampler(len(names), 8, 0, 0, arguments.steps + 1), 0, False)  # type: ignore[arg-type]
    load_s, step_s = [], []
    for _ in range(arguments.steps + 1):
        began = time.perf_counter()
        batch = next(batches)
        load_s.append(time.perf_counter() - began)
        step_s.append(timed(lambda batch=batch: step(batch)))
    load, compute = statistics.median(load_s[1:]), statistics.median(step_s[1:])
    print(
        f"training: loading and augmenting {load / 8 * 1e3:.2f} ms an image, the step {compute / 8 * 1e3:.0f} ms: "
        f"{load / (load + compute):.1%} of an epoch"
    )

    model.eval()
    read_s, network_s, write_s = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for i, (image, _) in enumerate(pairs):
            Image.fromarray(image).convert("RGB").save(f"{folder}/{i}.png")
        for start in range(0, len(pairs), 8):
            began = time.perf_counter()
            raw = [read_stack([Path(folder, f"{i}.png")], data)[0] for i in range(start, min(start + 8, len(pairs)))]
            prepared = [prepare_stack(stack, data) for stack in raw]
            read_s.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = list(predict_stacks([model], prepared, plan, torch.device("cpu"), "fp32"))
            network_s.append(time.perf_counter() - began)
            began = time.perf_counter()
            for i, (stack, said) in enumerate(zip(raw, found, strict=True)):
                whole = full_size(said.probabilities_DKhw, stack.shape[1:3], data)
                write_mask(Path(folder, f"out/{start + i}.png"), decide(whole, plan)[0, 0])
            write_s.append(time.perf_counter() - began)
    read, network, write = (statistics.median(times) for times in (read_s, network_s, write_s))
    print(
        f"prediction, one fold: reading {read / 8 * 1e3:.1f} ms an image, network {network / 8 * 1e3:.0f} ms, writing "
        f"{write / 8 * 1e3:.1f} ms: files are {(read + write) / (read + network + write):.1%} of it"
    )


if __name__ == "__main__":
    main()
