"""The grid loss: plain surfaces must not vary at the periods of a x2 upsampling more than the real image's do.

A generator that upsamples by NEAREST repeats each value in squares of 2, 4, 8 pixels, and a plain surface has nothing
else to vary by. No other loss of the training sees the difference between this grid and a texture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.evaluation.grid import LUMA, PERIODS, SIDE, masks

_STEP = SIDE // 2
_FLOOR = 1e-6  # variance of values in -1..1: a tenth of a grey level


def grid_loss(fake: Tensor, real: Tensor, symbols: Tensor) -> Tensor:
    """sum_p max(0, log peak_p(fake) - log peak_p(real)), a mean over plain squares; a float32 scalar.

    peak_p is the energy at period p over the energy of other waves of about the length, as in `evaluation.grid`.

    Args:
        fake, real: images [N, 3, H, W] in -1..1.
        symbols: integers [N, H, W]; a square of one symbol is plain. Without any the loss is 0.
    """
    squares = _squares(symbols[:, None].float())
    plain = (squares == squares[:, :1, :1]).all(2).all(1)
    if not plain.any():
        return fake.sum() * 0
    luma = torch.tensor(LUMA, dtype=torch.float32, device=fake.device).view(1, 3, 1, 1)
    peaks = [_log_peaks(_squares((images.float() * luma).sum(1, keepdim=True))[plain]) for images in (fake, real)]
    return torch.relu(peaks[0] - peaks[1].detach()).sum()


def _log_peaks(squares: Tensor) -> Tensor:
    """Squares [K, SIDE, SIDE] -> log of the peak of the mean spectrum, [periods]."""
    place = torch.arange(SIDE, device=squares.device)
    hann = 0.5 - 0.5 * torch.cos(2 * torch.pi * place / SIDE)
    window = hann[:, None] * hann
    centred = squares - (squares * window).sum((1, 2), keepdim=True) / window.sum()
    power = (torch.fft.fft2(centred * window).abs() ** 2).mean(0) / (SIDE**2 * (window**2).sum())
    logs = []
    for period in PERIODS:
        of_period, others = (torch.from_numpy(mask).to(squares.device) for mask in masks(period))
        around = power[others].mean() * int(of_period.sum())
        logs.append(torch.log((power[of_period].sum() + _FLOOR) / (around + _FLOOR)))
    return torch.stack(logs)


def _squares(planes: Tensor) -> Tensor:
    """Planes [N, 1, H, W] -> squares [K, SIDE, SIDE] at half steps; none where the plane is smaller."""
    if min(planes.shape[2:]) < SIDE:
        return planes.new_empty((0, SIDE, SIDE))
    found = planes[:, 0].unfold(1, SIDE, _STEP).unfold(2, SIDE, _STEP)
    return found.reshape(-1, SIDE, SIDE)
