"""Generated heartbeats, and a small network that detects an irregular beat, trained on the spot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_widgets.attribution.numerics.noise import seeded

RATE = 250  # samples per second
LEADS = ("lead II", "lead V1")
_SECONDS = 6
_RECORDINGS, _STEPS, _BATCH = 256, 300, 32
_BEFORE, _AFTER = 0.15, 0.5  # seconds of a beat around its peak

# Each wave of a beat is a Gaussian: seconds after the peak, standard deviation in seconds, millivolts in both leads.
_NORMAL = (
    (-0.17, 0.025, 0.15, 0.08),  # P
    (-0.03, 0.010, -0.10, 0.00),  # Q
    (0.00, 0.011, 1.00, 0.25),  # R
    (0.03, 0.011, -0.20, -0.80),  # S
    (0.28, 0.050, 0.30, 0.10),  # T
)
# Too early, without a P wave, wide, with an inverted T wave: like a premature ventricular contraction.
_IRREGULAR = (
    (0.00, 0.038, 1.05, 0.85),
    (0.09, 0.030, -0.35, -0.55),
    (0.30, 0.060, -0.35, -0.20),
)


@dataclass(frozen=True)
class Heartbeats:
    """A network that detects an irregular heartbeat, and recordings that demonstrate it.

    Attributes:
        model: A small 1-D convolutional network in eval mode. It takes recordings of any length, (N, 2, T).
        signal: A recording with one irregular beat, shape (2, 1500), in millivolts.
        without: The same recording with a normal beat in its place.
        interval: The samples of the irregular beat, from the first to the one after the last.
        background: Recordings without irregular beats, shape (24, 2, 1500).
        sampling_rate: Samples per second.
        channel_names: The names of the two leads.
        class_names: The classes, "normal" and "irregular".
    """

    model: nn.Module
    signal: Tensor
    without: Tensor
    interval: tuple[int, int]
    background: Tensor
    sampling_rate: int = RATE
    channel_names: tuple[str, ...] = LEADS
    class_names: tuple[str, str] = ("normal", "irregular")


def heartbeats(seed: int = 0) -> Heartbeats:
    """Train a small network in seconds to detect one irregular beat among normal ones.

    Each recording is a sum of Gaussians, one for each wave of each beat, plus noise and a slow drift. In half of the
    recordings, one beat comes too early, is wide and has no P wave. A lead may be missing: it is then zero.

    Source of the waves as Gaussians: McSharry, Clifford, Tarassenko and Smith, "A dynamical model for generating
    synthetic electrocardiogram signals", 2003.

    Args:
        seed: The random seed for the recordings and the weights.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv1d(2, 12, 9, stride=2, padding=4), nn.ReLU(),
            nn.Conv1d(12, 16, 9, stride=2, padding=4), nn.ReLU(),
            nn.Conv1d(16, 16, 9, stride=2, padding=4), nn.ReLU(),
            nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip
        generator = seeded(seed, "heartbeats")
        labels = torch.arange(_RECORDINGS) % 2
        signals = torch.stack([_recorded(int(label), generator)[0] for label in labels])
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(_STEPS):
            chosen = torch.randint(_RECORDINGS, (_BATCH,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(signals[chosen] * _present(generator)), labels[chosen]).backward()
            optimizer.step()
    model.requires_grad_(False)
    signal, interval = _recorded(1, seeded(seed, "recording"))
    without, _ = _recorded(0, seeded(seed, "recording"))
    background = torch.stack([_recorded(0, generator)[0] for _ in range(24)])
    return Heartbeats(model.eval(), signal, without, interval, background)


def real_ecg() -> Tensor:
    """Return the electrocardiogram that ships with PyWavelets, as the network takes it: three normal beats.

    Its sampling rate isn't documented; at 360 samples per second, it has 65 beats a minute. It has one lead, which is
    read as lead II and scaled to 1 mV; lead V1 is missing, and so zero.

    Returns:
        Shape (2, 711), at 250 samples per second.

    Raises:
        ImportError: PyWavelets is missing.
    """
    try:
        from pywt import data
    except ImportError as error:
        raise ImportError("The recording needs the extra demo: pip install 'saliency-widgets[demo]'.") from error
    recorded = torch.from_numpy(data.ecg()).float()
    resampled = F.interpolate(recorded[None, None], size=round(len(recorded) * RATE / 360), mode="linear")[0, 0]
    lead = (resampled - resampled.median()) / (resampled.max() - resampled.median())
    return torch.stack([lead, torch.zeros_like(lead)])


def beat(times: Tensor, *, irregular: bool = False, vary: Tensor | float = 1.0) -> Tensor:
    """Return a beat with its peak at time 0, in millivolts in both leads.

    Args:
        times: Times in seconds, shape (T,).
        irregular: Whether the beat is wide and has no P wave.
        vary: A factor for the width and for the height of each wave, shape (2, waves, 1).

    Returns:
        Shape (2, T).
    """
    waves = torch.tensor(_IRREGULAR if irregular else _NORMAL, dtype=times.dtype)[..., None]
    wider, higher = vary if isinstance(vary, Tensor) else (vary, vary)
    shapes = higher * torch.exp(-0.5 * ((times - waves[:, 0]) / (wider * waves[:, 1])) ** 2)
    return torch.stack([(waves[:, 2 + lead] * shapes).sum(0) for lead in (0, 1)])


def _recorded(label: int, generator: torch.Generator) -> tuple[Tensor, tuple[int, int]]:
    """Return a recording, (2, T), and the samples of the beat that is irregular if the label is 1."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    times = torch.arange(_SECONDS * RATE) / RATE
    pause = uniform(0.75, 1.0)
    peaks = [uniform(0.1, 0.6)]
    while peaks[-1] < _SECONDS:
        peaks.append(peaks[-1] + pause * uniform(0.95, 1.05))
    odd = 2 + int(torch.randint(len(peaks) - 4, (), generator=generator))
    early = uniform(0.25, 0.35) * pause * label
    vary = 1 + 0.25 * (2 * torch.rand(2, len(_NORMAL), 1, generator=generator) - 1)  # of this person
    signal = torch.zeros(2, len(times))
    for k, peak in enumerate(peaks):
        irregular = bool(label) and k == odd
        waves = len(_IRREGULAR if irregular else _NORMAL)
        signal += beat(times - peak + early * (k == odd), irregular=irregular, vary=vary[:, :waves])
    signal *= uniform(0.8, 1.2)
    drift = uniform(0.05, 0.25) * torch.sin(2 * torch.pi * (uniform(0.1, 0.4) * times + uniform(0, 1)))
    noise = 0.03 * torch.randn(2, len(times), generator=generator)
    peak = peaks[odd] - early
    return signal + drift + noise, (round((peak - _BEFORE) * RATE), round((peak + _AFTER) * RATE))


def _present(generator: torch.Generator) -> Tensor:
    """Return 0 for a missing lead, 1 for the others, shape (B, 2, 1): one of three recordings has a single lead."""
    missing = torch.randint(6, (_BATCH, 1), generator=generator)
    return (missing != torch.arange(2)).float()[..., None]
