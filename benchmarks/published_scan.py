"""The published way to run a selective scan without its CUDA kernel, to measure against; the package does not use it:
decays and inputs of all steps at once, then each step takes its slice by index, for which autograd makes a gradient
of the full size. `by_unbind` is the same with all slices taken at once, which is what a fair loop does.
"""

import torch
from torch import Tensor


def published_loop(u_BDL: Tensor, delta_BDL: Tensor, A_DN: Tensor, B_BNL: Tensor, C_BNL: Tensor) -> Tensor:
    decay_BDLN, input_BDLN = _all_steps(u_BDL, delta_BDL, A_DN, B_BNL)
    h, outputs = input_BDLN.new_zeros(*u_BDL.shape[:2], A_DN.shape[1]), []
    for t in range(u_BDL.shape[2]):
        h = decay_BDLN[:, :, t] * h + input_BDLN[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C_BNL[:, :, t]))
    return torch.stack(outputs, 2)


def by_unbind(u_BDL: Tensor, delta_BDL: Tensor, A_DN: Tensor, B_BNL: Tensor, C_BNL: Tensor) -> Tensor:
    decay_BDLN, input_BDLN = _all_steps(u_BDL, delta_BDL, A_DN, B_BNL)
    h, outputs = input_BDLN.new_zeros(*u_BDL.shape[:2], A_DN.shape[1]), []
    for decay, added, C_BN in zip(decay_BDLN.unbind(2), input_BDLN.unbind(2), C_BNL.unbind(2), strict=True):
        h = decay * h + added
        outputs.append((h * C_BN.unsqueeze(1)).sum(-1))
    return torch.stack(outputs, 2)


def _all_steps(u_BDL: Tensor, delta_BDL: Tensor, A_DN: Tensor, B_BNL: Tensor) -> tuple[Tensor, Tensor]:
    decay = torch.exp(delta_BDL.unsqueeze(-1) * A_DN.unsqueeze(1))
    return decay, (delta_BDL * u_BDL).unsqueeze(-1) * B_BNL.transpose(1, 2).unsqueeze(1)
