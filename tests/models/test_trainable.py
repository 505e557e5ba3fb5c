"""What a normalisation layer cannot be trained on is known before the training."""

import pytest
import torch

from ukan.errors import UserError
from ukan.models import build_model, check_trainable


def test_a_single_image_with_a_deepest_map_of_one_pixel_is_refused_with_what_to_set() -> None:
    model = build_model("ukan", 3, 1, {"widths": [8, 8, 8]})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"train.batch_size=1 .*data.input_size=\[32, 32\].*larger") as caught:
        check_trainable(model, 1, 3, (32, 32))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(torch.zeros(1, 3, 32, 32))
    check_trainable(model, 2, 3, (32, 32))
    check_trainable(model, 1, 3, (32, 64))
    fresh = build_model("ukan", 3, 1, {"widths": [8, 8, 8]})
    check_trainable(fresh, 2, 3, (32, 32))
    for name, tensor in fresh.state_dict().items():
        assert tensor.device.type == "cpu" and ("num_batches" not in name or tensor == 0)
    assert before.keys() == fresh.state_dict().keys()
