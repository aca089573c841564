"""Training loop of the generators: EMA, checkpoints, resume, a limit of time, and CUDA graphs.

Crystals are small: on a GPU nearly all the time of a step goes into starting its thousand kernels. The whole
step (loss, backward pass, optimiser, average) is therefore recorded once for each size of crystals and
replayed; the standard trainers do not do this, which is why the loop is ours. On a CPU the same code runs step
by step.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnes.errors import DataError, SettingsError
from onnes.generate.groups import Group, Groups

Loss = Callable[[Group], dict[str, Tensor]]
#: From averaged weights, by the module's names and on the CPU, to JSON values: figures of crystals drawn with them, and
#: their ``quality``, higher for better ones.
Judge = Callable[[dict[str, Tensor]], dict[str, Any]]


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Attributes
    ----------
    steps : int
        Optimisation steps.
    seconds : float or None
        Stop after this much time, all sessions of a resumed run together; the learning rate then follows
        whichever of steps and seconds is further on.
    lr : float
        Peak; linear warm-up, then cosine decay to 2 %.
    warmup : int
        Steps.
    batch : int
        Crystals a step at most.
    pairs : int
        Ordered pairs of atoms a step at most.
    ema : float
        Decay of the running mean of the weights.
    clip : float
        Largest norm of the gradient.
    weight_decay : float
    tuned : float
        Share of the training at which weights of crystals change from ``weight`` to ``tuned_weight`` (fine-tuning); 1
        for never.
    every : int
        Steps between two lines of the log.
    save_seconds : float
        Between two checkpoints.
    seed : int
    checks : int
        Validations in the course of the training.
    keep_best : bool
        Whether the averaged weights of the lowest validation loss are the result, not the last ones.
    draw_every : int
        Steps between two judgements of drawn crystals; 0 for the end of the training only.
    keep_drawn : bool
        Whether the averaged weights whose crystals had the highest quality are the result (of equals the last),
        whatever `keep_best` says.
    """

    steps: int = 20000
    seconds: float | None = None
    lr: float = 1e-3
    warmup: int = 500
    batch: int = 256
    pairs: int = 20000
    ema: float = 0.9995
    clip: float = 1.0
    weight_decay: float = 1e-3
    tuned: float = 1.0
    every: int = 200
    save_seconds: float = 120.0
    seed: int = 0
    checks: int = 10
    keep_best: bool = False
    draw_every: int = 0
    keep_drawn: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 < self.tuned <= 1 or not 0 <= self.ema < 1:
            raise SettingsError(
                "bad-setting", f"steps, batch >= 1, 0 < tuned <= 1, 0 <= ema < 1 needed: {self}"
            )


class Fit:
    """A training run in a folder.

    Parameters
    ----------
    module : nn.Module
        Holds the parameters.
    loss : callable
        Group of a batch to named losses; they are summed. On a GPU it must not wait for the device.
    train : dict of int to dict of str to Tensor
        Groups by size, on the module's device. ``weight`` (M,) and, where there, ``tuned_weight`` (M,) are how
        often a crystal is drawn.
    settings : FitSettings
    folder : path
        ``last.pt`` (checkpoint) and ``log.jsonl`` are kept here.

    Attributes
    ----------
    drawn : list of dict
        What the judge said of drawn crystals, with ``step``, in order; all sessions of a resumed run together.
    """

    def __init__(
        self, module: nn.Module, loss: Loss, train: Groups, settings: FitSettings, folder: str | Path
    ) -> None:
        self.module, self.loss, self.train, self.settings = module, loss, train, settings
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.on_gpu = self.device.type == "cuda"
        self.mean = [p.detach().clone() for p in self.parameters]
        self.rate = torch.zeros((), device=self.device)
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=self.rate if self.on_gpu else settings.lr,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
            **({"fused": True, "capturable": True} if self.on_gpu else {}),
        )
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        self.sizes = sorted(train)
        self.batches = {n: self._batch_size(n) for n in self.sizes}
        self.step, self.before = 0, 0.0
        self.chances = {n: torch.empty_like(train[n]["weight"]) for n in self.sizes}
        self.due = np.ones(len(self.sizes))
        self._weigh("weight")
        self.sums: dict[str, Tensor] = {}
        self.fine = torch.zeros((), device=self.device)
        self.best, self.lowest = [p.clone() for p in self.mean], math.inf
        self.drawn: list[dict[str, Any]] = []
        self.finest, self.highest = [p.clone() for p in self.mean], -math.inf
        self.graphs: dict[int, Any] = {}
        self.memory: Any = None

    def _batch_size(self, n: int) -> int:
        fits = self.settings.pairs // max(1, n * n)
        return int(max(4, min(self.settings.batch, fits, 2 * len(self.train[n]["weight"]))))

    def _weigh(self, name: str) -> None:
        """Draw crystals by these weights from now on."""
        total = []
        for n in self.sizes:
            weight = self.train[n].get(name, self.train[n]["weight"])
            self.chances[n].copy_(torch.cumsum(weight, 0) / weight.sum().clamp(min=1e-9))
            total.append(float(weight.sum()) / self.batches[n])
        self.due = np.array(total) / np.sum(total)

    def _draw(self, n: int) -> Group:
        """Take a batch; crystals are drawn with replacement by their weights."""
        drawn = torch.rand(self.batches[n], device=self.device)
        last = len(self.chances[n]) - 1
        index = torch.searchsorted(self.chances[n], drawn).clamp(max=last)
        return {name: value[index] for name, value in self.train[n].items()}

    def _one(self, n: int) -> None:
        """One optimisation step on crystals of one size."""
        s = self.settings
        grads = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_zero_(grads)
        parts = self.loss(self._draw(n))
        total = torch.stack(list(parts.values())).sum()
        total.backward()
        # A batch whose loss is not finite is left out of the step, not of the count.
        fine = torch.isfinite(total)
        for g in grads:
            g.copy_(torch.where(fine, torch.nan_to_num(g), torch.zeros_like(g)))
        torch.nn.utils.clip_grad_norm_(self.parameters, s.clip, foreach=True)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1.0 - s.ema)
            self.fine.add_(fine)
            for name, value in parts.items():
                self.sums[name].add_(torch.nan_to_num(value.detach()))

    def _step(self, n: int) -> None:
        if not self.on_gpu:
            self._one(n)
            return
        if n not in self.graphs:
            # Warm-up outside the recording, on a side stream, as CUDA graphs want it.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._one(n)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.memory):
                self._one(n)
            self.memory = self.memory or graph.pool()
            self.graphs[n] = graph
        self.graphs[n].replay()

    def progress(self, elapsed: float) -> float:
        """Share of the training that is done, by steps or by time."""
        s = self.settings
        by_time = elapsed / s.seconds if s.seconds else 0.0
        return min(1.0, max(self.step / s.steps, by_time))

    def run(
        self, validate: Callable[[], dict[str, float]] | None = None, judge: Judge | None = None
    ) -> dict[str, float]:
        """Train to the end, from the last checkpoint if there is one.

        Parameters
        ----------
        validate : callable, optional
            Called in the course of the training with the averaged weights in place.
        judge : callable, optional
            Draws crystals with the averaged weights every ``draw_every`` steps and at the end. Its time is no training
            time, and it changes nothing in the course of the training.

        Returns
        -------
        dict
            The last line of the log.

        Raises
        ------
        DataError
            ``no-finite-loss`` when no batch between two lines of the log had one: nothing is learnt then.
        """
        s = self.settings
        torch.manual_seed(s.seed)
        names = self._names()
        self.sums = {name: torch.zeros((), device=self.device) for name in names}
        self._resume()
        rng = np.random.default_rng([s.seed, self.step])
        started, saved, counted, line = time.time(), time.time(), self.step, {}
        tuned, validated = False, int(s.checks * self.progress(self.before))
        while (done := self.progress(self.before + time.time() - started)) < 1.0:
            if not tuned and done >= s.tuned:
                tuned = True
                self._weigh("tuned_weight")
            if self.step % 16 == 0:
                self._set_rate(s.lr * min(1.0, (self.step + 1) / s.warmup) * _cosine(done))
            self._step(int(rng.choice(self.sizes, p=self.due)))
            self.step += 1
            if self.step % s.every == 0 or self.step == s.steps:
                line = self._report(counted, started)
                counted = self.step
                now = int(s.checks * self.progress(line["seconds"]))
                if validate and now > validated:
                    validated = now
                    line |= self._check(validate)
                self._log(line)
            if judge and s.draw_every and self.step % s.draw_every == 0:
                started += self._judge(judge, started)
            if time.time() - saved > s.save_seconds:
                saved = time.time()
                self._save(self.before + time.time() - started)
        line |= self._check(validate) if validate else {}
        if judge:
            started += self._judge(judge, started)
        self._save(self.before + time.time() - started)
        self._log(line)
        return line

    def _check(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Validate, and keep the weights when they are the best so far."""
        found = self.averaged(validate)
        total = sum(found.values())
        if total < self.lowest:
            self.lowest = total
            torch._foreach_copy_(self.best, self.mean)
        return found

    def _judge(self, judge: Judge, started: float) -> float:
        """Judge crystals drawn with the averaged weights, log and save what was found; seconds that this took."""
        if self.drawn and self.drawn[-1]["step"] == self.step:
            return 0.0
        began = time.time()
        trained = self.before + began - started
        # Networks that are built for the draws begin with random weights: those of the training go on unchanged.
        with torch.random.fork_rng(devices=[]):
            found = judge(self._named(self.mean))
        if found["quality"] >= self.highest:
            self.highest = found["quality"]
            torch._foreach_copy_(self.finest, self.mean)
        self.drawn.append({"step": self.step, "seconds": round(trained, 1), **found})
        self._log(self.drawn[-1])
        self._save(trained)
        return time.time() - began

    def _names(self) -> list[str]:
        with torch.no_grad():
            return sorted(self.loss(self._draw(self.sizes[0])))

    def _set_rate(self, value: float) -> None:
        if self.on_gpu:
            self.rate.fill_(value)
        else:
            for group in self.optimiser.param_groups:
                group["lr"] = value

    def _report(self, counted: int, started: float) -> dict[str, float]:
        # A short last window may be one unlucky batch.
        whole = self.step - counted >= min(10, self.settings.every)
        if whole and float(self.fine) == 0.0:
            raise DataError("no-finite-loss", f"no batch of the last {self.step - counted} had a finite loss")
        self.fine.zero_()
        steps = max(1, self.step - counted)
        line = {name: round(float(value) / steps, 5) for name, value in self.sums.items()}
        for value in self.sums.values():
            value.zero_()
        return {"step": self.step, "seconds": round(self.before + time.time() - started, 1), **line}

    def _log(self, line: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def averaged(self, use: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Call something with the averaged weights in place of the running ones."""
        kept = [p.detach().clone() for p in self.parameters]
        state = torch.get_rng_state(), torch.cuda.get_rng_state() if self.on_gpu else None
        torch.manual_seed(12345)
        self.module.eval()
        try:
            with torch.no_grad():
                torch._foreach_copy_([p.data for p in self.parameters], self.mean)
                return use()
        finally:
            self.module.train()
            with torch.no_grad():
                torch._foreach_copy_([p.data for p in self.parameters], kept)
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.cuda.set_rng_state(state[1])

    def mean_loss(self, groups: Groups) -> dict[str, float]:
        """Losses on other groups, weighted by crystals, without gradients (for ``validate``)."""
        total: dict[str, float] = {}
        count = 0
        for group in groups.values():
            size = len(group["weight"])
            for start in range(0, size, 256):
                part = {name: value[start : start + 256] for name, value in group.items()}
                weight = len(part["weight"])
                for name, value in self.loss(part).items():
                    total[name] = total.get(name, 0.0) + weight * float(value)
                count += weight
        return {f"val_{name}": round(value / max(1, count), 5) for name, value in total.items()}

    def _save(self, seconds: float) -> None:
        state = {
            "module": self.module.state_dict(),
            "mean": self.mean,
            "best": self.best,
            "lowest": self.lowest,
            "drawn": self.drawn,
            "finest": self.finest,
            "highest": self.highest,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": seconds,
            "settings": asdict(self.settings),
        }
        temporary = self.folder / "last.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "last.pt")

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.on_gpu:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate
        torch._foreach_copy_(self.mean, state["mean"])
        torch._foreach_copy_(self.best, state["best"])
        self.lowest = state["lowest"]
        if "drawn" in state:  # checkpoints of before have none
            self.drawn, self.highest = state["drawn"], state["highest"]
            torch._foreach_copy_(self.finest, state["finest"])
        self.step, self.before = state["step"], state["seconds"]
        torch.manual_seed(self.settings.seed + self.step)

    @property
    def finest_step(self) -> int | None:
        """Step whose crystals had the highest quality, the last of equals; None where none were drawn."""
        if not self.drawn:
            return None
        return int(max(self.drawn, key=lambda line: (line["quality"], line["step"]))["step"])

    def weights(self) -> dict[str, Tensor]:
        """Averaged weights (the last or the best ones) by the module's names, on the CPU."""
        if self.settings.keep_drawn and math.isfinite(self.highest):
            return self._named(self.finest)
        return self._named(self.best if self.settings.keep_best and math.isfinite(self.lowest) else self.mean)

    def _named(self, mean: list[Tensor]) -> dict[str, Tensor]:
        state = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        names = [name for name, p in self.module.named_parameters() if p.requires_grad]
        return state | {name: value.cpu().clone() for name, value in zip(names, mean, strict=True)}


def fit(
    module: nn.Module,
    loss: Loss,
    train: Groups,
    settings: FitSettings,
    folder: str | Path,
    validate: Groups | None = None,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Train a module in a folder; rerun to resume.

    Returns
    -------
    dict
        Last line of the log: mean losses, and those on the validation groups with the averaged weights.
    dict of str to Tensor
        Averaged weights.
    """
    run = Fit(module, loss, train, settings, folder)
    line = run.run((lambda: run.mean_loss(validate)) if validate else None)
    return line, run.weights()


def _cosine(done: float) -> float:
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done))
