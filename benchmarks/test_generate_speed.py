"""Sampling and training of our generators beside a network of CSPNet's published sizes, on one core.

    OMP_NUM_THREADS=1 pytest benchmarks/test_generate_speed.py -o addopts=-q --benchmark-only \
        --benchmark-timer=time.process_time -s

The peer follows Jiao et al. (DiffCSP, NeurIPS 2023): 6 layers of width 512, messages over all ordered pairs of atoms of
a crystal from both nodes, the metric of the cell and sines and cosines of 128 frequencies of the fractional
difference, all in one unsplit linear layer. Its weights are random: only its cost is measured, one evaluation and one
training step, on the same 64 crystals; 1,000 steps with predictor and corrector are 2,000 evaluations (an
extrapolation). Ours is measured whole: symbols, 30 steps of the cell, and the structures made of them.
"""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from onnes.generate.asked import SamplerSettings
from onnes.generate.diffusion import OrbitDiffusion
from onnes.generate.orbits import FamilyScale, frame_batch
from onnes.generate.symmetric import SymmetricSampler
from onnes.learn.store import Checkpoint, pretrained
from onnes.nets.denoiser import DenoiserSettings

pytest.importorskip("pytest_benchmark")

COUNT, STEPS, FREQUENCIES, WIDTH, LAYERS = 64, 1000, 128, 512, 6
ROUNDS = 3
seconds: dict[str, float] = {}


class CspLayer(nn.Module):
    """A message-passing layer of CSPNet."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        edge = 2 * WIDTH + 9 + 6 * FREQUENCIES
        self.edge = nn.Sequential(nn.Linear(edge, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.node = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())

    def forward(self, h: Tensor, ends: Tensor, pair: Tensor, degree: Tensor) -> Tensor:
        x = self.norm(h)
        message = self.edge(torch.cat([x[ends[0]], x[ends[1]], pair], dim=-1))
        mean = torch.zeros_like(x).index_add(0, ends[0], message) / degree
        return h + self.node(torch.cat([x, mean], dim=-1))


class CspNet(nn.Module):
    """CSPNet at its published size; crystals of any sizes side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Linear(100, WIDTH)
        self.mix = nn.Linear(WIDTH + 256, WIDTH)
        self.layers = nn.ModuleList(CspLayer() for _ in range(LAYERS))
        self.last = nn.LayerNorm(WIDTH)
        self.to_score, self.to_type = nn.Linear(WIDTH, 3, bias=False), nn.Linear(WIDTH, 100)
        self.to_lattice = nn.Linear(WIDTH, 9, bias=False)

    def forward(self, types: Tensor, frac: Tensor, cell: Tensor, time: Tensor, sizes: Tensor) -> Tensor:
        crystal = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        first = sizes.cumsum(0) - sizes
        blocks = zip(first.tolist(), sizes.tolist(), strict=True)
        ends = torch.cat([s + torch.cartesian_prod(torch.arange(n), torch.arange(n)) for s, n in blocks]).T
        delta = frac[ends[1]] - frac[ends[0]]
        phase = 2 * torch.pi * delta[..., None] * torch.arange(FREQUENCIES)
        metric = (cell @ cell.transpose(1, 2)).flatten(1)[crystal[ends[0]]]
        pair = torch.cat([metric, phase.sin().flatten(1), phase.cos().flatten(1)], dim=-1)
        h = self.mix(torch.cat([self.element(types), time[crystal]], dim=-1))
        for layer in self.layers:
            h = layer(h, ends, pair, sizes[crystal][:, None])
        h = self.last(h)
        pooled = torch.zeros(len(sizes), WIDTH).index_add(0, crystal, h) / sizes[:, None]
        return torch.cat(
            [self.to_score(h).flatten(), self.to_type(h).flatten(), self.to_lattice(pooled).flatten()]
        )


@pytest.fixture(scope="module")
def frames():
    torch.set_num_threads(1)
    sampler = SymmetricSampler(SamplerSettings())
    return [d.frame for d in sampler.symbols([sampler.wish] * COUNT, 0)]


@pytest.fixture(scope="module")
def peer(frames):
    sizes = torch.tensor([f.n_atoms for f in frames])
    n = int(sizes.sum())
    generator = torch.Generator().manual_seed(0)
    given = (
        torch.rand((n, 100), generator=generator),
        torch.rand((n, 3), generator=generator),
        torch.rand((COUNT, 3, 3), generator=generator),
        torch.rand((COUNT, 256), generator=generator),
        sizes,
    )
    return CspNet(), given


def measured(benchmark, name: str, run, rounds: int) -> None:
    """Best of the rounds: the first one also pays for what torch sets up."""
    benchmark.group = name.split(",")[0]
    best: list[float] = []

    def timed() -> None:
        began = time.process_time()
        run()
        best.append(time.process_time() - began)

    benchmark.pedantic(timed, rounds=rounds, iterations=1)
    seconds[name] = min(best)


def test_sampling_peer(benchmark, peer):
    net, given = peer
    net.eval()

    def once() -> None:
        with torch.no_grad():
            net(*given)

    measured(benchmark, "sampling, peer", once, ROUNDS)


def test_sampling_ours(benchmark):
    sampler = SymmetricSampler(SamplerSettings())

    def whole() -> None:
        assert len(list(sampler.sample(0, 48, 0))) == 48

    measured(benchmark, "sampling, ours", whole, ROUNDS)
    peer = seconds["sampling, peer"] * 2 * STEPS
    ours = seconds["sampling, ours"] * COUNT / 48
    print(f"\n{COUNT} crystals: peer {peer:.0f} s (extrapolated), ours {ours:.1f} s, {peer / ours:.0f} times")
    assert peer > 20 * ours


def test_training_peer(benchmark, peer):
    net, given = peer
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step() -> None:
        optimiser.zero_grad()
        net(*given).square().mean().backward()
        optimiser.step()

    measured(benchmark, "training step, peer", step, ROUNDS)


def test_training_ours(benchmark, frames):
    stored = Checkpoint.load(pretrained("symmetric.safetensors"), "symmetric").settings
    model = OrbitDiffusion(DenoiserSettings(**stored["orbits"]), FamilyScale(*stored["lattice_scale"]))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = []
    for n in sorted({f.n_atoms for f in frames}):
        batch = frame_batch([f for f in frames if f.n_atoms == n])
        b = len(batch["types"])
        labels = {"log_tc": torch.zeros(b), "stable": torch.ones(b, dtype=torch.long)}
        more = {"w": torch.rand(b, n, 3) * batch["free"], "lattice": torch.randn(b, 6)}
        batches.append(batch | labels | more)

    def step() -> None:
        # The sizes one after the other: as many crystals, in more and smaller batches than training has.
        optimiser.zero_grad()
        for batch in batches:
            sum(model(batch).values()).backward()
        optimiser.step()

    measured(benchmark, "training step, ours", step, ROUNDS)
    peer, ours = seconds["training step, peer"], seconds["training step, ours"]
    print(
        f"\na training step of {COUNT} crystals: peer {peer:.2f} s, ours {ours:.2f} s, {peer / ours:.1f} times"
    )
